//! Keeping an archive alive: paying for its blobs.

use crate::{DepotError, Kind, Reader, Registry, Update};
use redstuff::BlobId;
use std::collections::HashMap;

/// What was paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funded {
    /// Blobs that are now stored at least until `end_epoch`.
    pub blobs: usize,
    /// The end of the archive now.
    pub end_epoch: u32,
    /// Its sequence.
    pub sequence: u64,
}

/// Pays for every blob of an archive until `epochs` epochs from now, the current one included, and moves
/// the ends of its levels. May be repeated after a failure: what was paid is not paid again.
///
/// # Errors
/// When a blob is gone or cannot be paid for.
pub async fn fund(
    reader: &Reader,
    registry: &dyn Registry,
    epochs: u32,
) -> Result<Funded, DepotError> {
    let end_epoch = registry.epoch().await?.saturating_add(epochs);
    let mut ends: HashMap<BlobId, u32> = HashMap::new();
    let mut sequence = reader.state().sequence;
    for (position, level) in reader.positions(0).into_iter().zip(reader.levels()) {
        let record = level.record();
        let mut blobs = vec![(record.blob, record.object)];
        blobs.extend(
            level
                .directory()
                .parts()
                .iter()
                .map(|part| (BlobId(part.blob.blob_id), part.blob.object)),
        );
        let packs = level.packs(&**reader.blobs()).await?;
        blobs.extend(packs.iter().map(|pack| (BlobId(pack.blob_id), pack.object)));
        for (blob, object) in blobs {
            if let std::collections::hash_map::Entry::Vacant(entry) = ends.entry(blob) {
                let end = reader.blobs().extend(blob, object, end_epoch).await?;
                if end < end_epoch {
                    let message = format!("blob {blob} is stored until epoch {end} only");
                    return Err(DepotError::new(Kind::Refused, message));
                }
                entry.insert(end);
            }
        }
        if record.end_epoch < end_epoch {
            sequence = registry.update(sequence, &Update::Extend { position, end_epoch }).await?;
        }
    }
    Ok(Funded { blobs: ends.len(), end_epoch, sequence })
}
