//! Bytes of blobs, as `haulout-depot` wants them.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use haulout_depot::{DepotError, Kind};
use haulout_walrus::{Client, ReadError, ReadOptions};
use redstuff::BlobId;

/// Whether slivers are checked by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// They were by the source, or what is read is checked in another way.
    No,
    /// Each of them.
    Slivers,
}

/// Some bytes of a blob.
pub(crate) async fn range(
    client: &Client,
    blob: BlobId,
    range: Range<u64>,
    check: Check,
) -> Result<Bytes, DepotError> {
    let mut options = ReadOptions::default();
    if check == Check::No {
        options.content = Some(Arc::new(|_| true));
    }
    let (bytes, report) = client.read_range(&blob, range, &options).await.map_err(|error| {
        let kind = match &error {
            ReadError::NotFound(_) => Kind::Missing,
            ReadError::Decode(..) => Kind::Corrupt,
            _ => Kind::Unavailable,
        };
        DepotError::new(kind, format!("cannot read blob {blob}")).because(error)
    })?;
    if !report.liars.is_empty() {
        tracing::warn!(%blob, liars = report.liars.len(), "storage nodes gave wrong slivers");
    }
    Ok(bytes.into())
}
