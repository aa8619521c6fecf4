//! Reading blobs: committee, metadata, slivers, decoding, checks.

mod error;
mod gather;
mod quilt;
mod range;
mod recover;
mod share;
mod status;
mod tries;
mod whole;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use redstuff::{BlobId, Consistency, Metadata, Primary, Secondary};

pub use error::{Account, AxisName, ReadError};
pub use gather::Progress;
pub use quilt::QuiltReadError;

use crate::{Client, Committee, client::Nodes, committee::NodeId, limits::BLOB_BYTES_MAX};
use gather::Have;
use tries::Tries;

/// How to read.
#[derive(Clone)]
pub struct ReadOptions {
    /// How thoroughly a whole blob is checked for having been encoded correctly.
    pub consistency: Consistency,
    /// Largest blob, or range, that is read, in bytes.
    pub max_bytes: u64,
    /// Told of every sliver's bytes as they arrive.
    pub progress: Option<Progress>,
    /// For ranges: says whether bytes are the right ones, because their hash is known. Slivers are
    /// then verified one by one only if it says no, to find out who lied.
    pub content: Option<ContentCheck>,
    /// The blob's metadata, if the caller has it: it is not fetched again then.
    pub metadata: Option<Metadata>,
}

/// Whether bytes are what they should be.
pub type ContentCheck = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            consistency: Consistency::Default,
            max_bytes: BLOB_BYTES_MAX,
            progress: None,
            content: None,
            metadata: None,
        }
    }
}

impl fmt::Debug for ReadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOptions")
            .field("consistency", &self.consistency)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// What a read cost, and who misbehaved.
#[derive(Clone, Default)]
pub struct Report {
    /// Bytes of metadata fetched.
    pub metadata_bytes: u64,
    /// Bytes of slivers fetched and found good.
    pub sliver_bytes: u64,
    /// Bytes of symbols, with their proofs, fetched to rebuild slivers.
    pub symbol_bytes: u64,
    /// Slivers fetched and found good.
    pub slivers: usize,
    /// Slivers known without fetching, being padding.
    pub padding: usize,
    /// Slivers rebuilt from symbols.
    pub recovered: usize,
    /// Requests sent in the place of late ones.
    pub hedged: usize,
    /// Slivers by the position of the node that served them.
    pub by_node: BTreeMap<usize, usize>,
    /// Nodes that answered falsely.
    pub liars: Vec<NodeId>,
    /// The aggregator that gave the blob, if one had to.
    pub aggregator: Option<String>,
    /// All of the blob, where a part of it could only be read by decoding all: for whoever wants more of it.
    pub whole: Option<Bytes>,
    progress: Option<Progress>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("metadata_bytes", &self.metadata_bytes)
            .field("sliver_bytes", &self.sliver_bytes)
            .field("slivers", &self.slivers)
            .field("padding", &self.padding)
            .field("recovered", &self.recovered)
            .field("hedged", &self.hedged)
            .field("liars", &self.liars)
            .finish_non_exhaustive()
    }
}

impl Report {
    fn new(options: &ReadOptions) -> Self {
        Self { progress: options.progress.clone(), ..Self::default() }
    }
}

/// What is at hand of a blob between tries.
#[derive(Debug, Default)]
struct State {
    metadata: Option<Metadata>,
    primary: Have<Primary>,
    secondary: Have<Secondary>,
}

impl State {
    fn new(blob: &BlobId, options: &ReadOptions) -> Self {
        let metadata = options.metadata.clone().filter(|metadata| metadata.id() == blob);
        Self { metadata, ..Self::default() }
    }
}

impl Client {
    /// A blob's metadata, verified.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn metadata(&self, blob: &BlobId) -> Result<Metadata, ReadError> {
        let (mut tries, mut report) = (Tries::new(blob), Report::default());
        loop {
            let (committee, nodes) = tries.committee(self).await?;
            match gather::metadata(self, &committee, &nodes, blob, &mut report).await {
                Ok(metadata) => return Ok(metadata),
                Err(error) => tries.again(self, error).await?,
            }
        }
    }

    /// The metadata, fetched unless it is at hand.
    async fn ready<'s>(
        &self,
        (committee, nodes): (&Committee, &Nodes),
        blob: &BlobId,
        state: &'s mut State,
        report: &mut Report,
    ) -> Result<(Metadata, &'s mut State), ReadError> {
        let metadata = match &state.metadata {
            Some(metadata) => metadata.clone(),
            None => {
                let metadata = gather::metadata(self, committee, nodes, blob, report).await?;
                state.metadata = Some(metadata.clone());
                metadata
            }
        };
        Ok((metadata, state))
    }

    /// The whole blob from an aggregator, where reading failed because too few nodes answered.
    async fn asking_aggregators(
        &self,
        failed: ReadError,
        tries: &Tries<'_>,
        blob: &BlobId,
        options: &ReadOptions,
        report: &mut Report,
    ) -> Result<Vec<u8>, ReadError> {
        if !matches!(failed, ReadError::NoMetadata { .. } | ReadError::TooFew { .. }) {
            return Err(failed);
        }
        let Some(n) = tries.shards() else { return Err(failed) };
        let asked = self.ask_aggregators(n, blob, options.max_bytes).await;
        let (bytes, aggregator) = asked.ok_or(failed)?;
        report.aggregator = Some(aggregator);
        Ok(bytes)
    }
}
