//! Reading blobs: committee, metadata, slivers, decoding, checks.

mod error;
mod gather;
mod recover;
mod share;
mod status;
mod tries;

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use redstuff::{
    BlobId, Consistency, DecodeError, Metadata, Primary, Secondary, Sliver, SliverIndex,
    UnverifiedSliver,
    quilt::{QuiltError, QuiltFile, QuiltIndex, QuiltPatch, QuiltPatchId, QuiltView},
};

pub use error::{Account, AxisName, ReadError};
pub use gather::Progress;

use crate::{
    Client, Committee,
    client::Nodes,
    committee::NodeId,
    limits::{BLOB_BYTES_MAX, RECOVERED_SLIVERS_MAX},
};
use gather::{Goal, Have, blocking};
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

    /// A whole blob. Systematic slivers come first; with all of them nothing is computed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(
        &self,
        blob: &BlobId,
        options: &ReadOptions,
    ) -> Result<(Vec<u8>, Report), ReadError> {
        let (mut tries, mut report) = (Tries::new(blob), Report::new(options));
        let mut state = State::new(blob, options);
        let failed = loop {
            let (committee, nodes) = tries.committee(self).await?;
            let place = (&committee, &nodes);
            let once = self.read_once(place, blob, &mut state, options, &mut report).await;
            match once {
                Ok(bytes) => return Ok((bytes, report)),
                Err(error) => match tries.again(self, error).await {
                    Ok(()) => {}
                    Err(error) => break error,
                },
            }
        };
        if !matches!(failed, ReadError::NoMetadata { .. } | ReadError::TooFew { .. }) {
            return Err(failed);
        }
        let Some(n) = tries.shards() else { return Err(failed) };
        match self.ask_aggregators(n, blob, options.max_bytes).await {
            Some((bytes, aggregator)) => {
                report.aggregator = Some(aggregator);
                Ok((bytes, report))
            }
            None => Err(failed),
        }
    }

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

    async fn read_once(
        &self,
        place: (&Committee, &Nodes),
        blob: &BlobId,
        state: &mut State,
        options: &ReadOptions,
        report: &mut Report,
    ) -> Result<Vec<u8>, ReadError> {
        let (metadata, state) = self.ready(place, blob, state, report).await?;
        let (length, limit) = (metadata.unencoded_length(), options.max_bytes);
        if length > limit {
            return Err(ReadError::TooLarge { blob: *blob, length, limit });
        }
        let n = metadata.shards();
        if state.primary.is_empty() {
            let of = metadata.clone();
            for sliver in blocking(move || of.padding_slivers()).await? {
                report.padding += 1;
                state.primary.insert(sliver.index().get(), sliver);
            }
        }
        let goal = Goal { wanted: indices(0..n.rows()), others: true, need: n.rows() };
        let have = &mut state.primary;
        match gather::slivers::<Primary>(self, place, &metadata, &goal, have, report).await {
            Ok(()) => {
                let blob = self.decode(&metadata, &state.primary, options).await?;
                if options.consistency != Consistency::Skip {
                    share::rows(self, &metadata, &blob, &state.primary);
                }
                Ok(blob)
            }
            // Nodes that lost or spoilt their primary slivers may still have the others.
            Err(error @ ReadError::TooFew { .. }) => {
                let goal =
                    Goal { wanted: indices(0..n.columns()), others: true, need: n.columns() };
                let have = &mut state.secondary;
                let second = gather::slivers(self, place, &metadata, &goal, have, report).await;
                match second {
                    Ok(()) => self.decode(&metadata, &state.secondary, options).await,
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn decode<A: redstuff::Axis>(
        &self,
        metadata: &Metadata,
        have: &Have<A>,
        options: &ReadOptions,
    ) -> Result<Vec<u8>, ReadError> {
        let slivers: Vec<_> = have.values().cloned().collect();
        let (of, check) = (metadata.clone(), options.consistency);
        let decoded = blocking(move || redstuff::decode(&of, &slivers, check)).await?;
        decoded.map_err(|error| ReadError::Decode(*metadata.id(), error))
    }

    /// The bytes `range` of a blob, from the slivers that cover it and nothing else, as long as
    /// their nodes serve them. Whole-blob consistency is not checked beyond those slivers.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_range(
        &self,
        blob: &BlobId,
        range: Range<u64>,
        options: &ReadOptions,
    ) -> Result<(Vec<u8>, Report), ReadError> {
        let (mut tries, mut report) = (Tries::new(blob), Report::new(options));
        let mut state = State::new(blob, options);
        let failed = loop {
            let (committee, nodes) = tries.committee(self).await?;
            let place = (&committee, &nodes);
            let range = range.clone();
            match self.range_once(place, blob, range, &mut state, options, &mut report).await {
                Ok(bytes) => return Ok((bytes, report)),
                Err(error) => match tries.again(self, error).await {
                    Ok(()) => {}
                    Err(error) => break error,
                },
            }
        };
        let Some(n) = tries.shards() else { return Err(failed) };
        if !matches!(failed, ReadError::NoMetadata { .. } | ReadError::TooFew { .. }) {
            return Err(failed);
        }
        match self.ask_aggregators(n, blob, options.max_bytes).await {
            Some((bytes, aggregator)) => {
                report.aggregator = Some(aggregator);
                let part = cut(blob, &bytes, &range)?;
                report.whole = Some(bytes.into());
                Ok((part, report))
            }
            None => Err(failed),
        }
    }

    async fn range_once(
        &self,
        place: (&Committee, &Nodes),
        blob: &BlobId,
        range: Range<u64>,
        state: &mut State,
        options: &ReadOptions,
        report: &mut Report,
    ) -> Result<Vec<u8>, ReadError> {
        let (metadata, state) = self.ready(place, blob, state, report).await?;
        let length = metadata.unencoded_length();
        if range.end > length || range.start > range.end {
            return Err(ReadError::Range { blob: *blob, length });
        }
        let (limit, bytes) = (options.max_bytes, range.end - range.start);
        if bytes > limit {
            return Err(ReadError::TooLarge { blob: *blob, length: bytes, limit });
        }
        let rows: Vec<u16> = metadata.rows_of_range(range.clone()).collect();
        if let Some(right) = &options.content {
            let unverified = gather::unverified(self, place, &metadata, &rows, report).await;
            if let Some(fetched) = unverified {
                let bytes = assemble(&metadata, &range, &fetched);
                if right(&bytes) {
                    return Ok(bytes);
                }
                let have = &mut state.primary;
                gather::sort_out(self, place.0, &metadata, fetched, have, report).await?;
            }
        }
        let have = &mut state.primary;
        match self.exactly(place, &metadata, &rows, have, report).await {
            Ok(()) => {}
            Err(ReadError::TooFew { .. }) => {
                let whole = self.read_once(place, blob, state, options, report).await?;
                let whole = &*report.whole.insert(whole.into());
                return cut(blob, whole, &range);
            }
            Err(error) => return Err(error),
        }
        let slivers: Vec<_> =
            rows.iter().filter_map(|row| state.primary.get(row)).cloned().collect();
        let read = blocking(move || redstuff::read_range(&metadata, range, &slivers)).await?;
        let bytes = read.map_err(|error| ReadError::Decode(*blob, error))?;
        match &options.content {
            Some(right) if !right(&bytes) => Err(ReadError::Content(*blob)),
            _ => Ok(bytes),
        }
    }

    /// Fetches just these slivers, and rebuilds those that cannot be fetched if they are few.
    async fn exactly<A: redstuff::Axis>(
        &self,
        place: (&Committee, &Nodes),
        metadata: &Metadata,
        items: &[u16],
        have: &mut Have<A>,
        report: &mut Report,
    ) -> Result<(), ReadError> {
        let missing = |have: &Have<A>| -> Vec<u16> {
            items.iter().copied().filter(|item| !have.contains_key(item)).collect()
        };
        let need = have.len() + missing(have).len();
        let goal = Goal { wanted: items.to_vec(), others: false, need };
        match gather::slivers(self, place, metadata, &goal, have, report).await {
            Ok(()) => return Ok(()),
            Err(error @ ReadError::TooFew { .. }) => {
                if missing(have).len() > RECOVERED_SLIVERS_MAX {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        for item in missing(have) {
            let index = SliverIndex::<A>::new(item);
            let sliver = recover::sliver(place, metadata, index, report).await?;
            share::sliver(self, metadata, &sliver);
            have.insert(item, sliver);
        }
        Ok(())
    }

    /// These columns, from the slivers that they are, or else cut out of the whole blob.
    async fn columns(
        &self,
        place: (&Committee, &Nodes),
        metadata: &Metadata,
        items: &[u16],
        state: &mut State,
        report: &mut Report,
    ) -> Result<(), ReadError> {
        match self.exactly(place, metadata, items, &mut state.secondary, report).await {
            Err(ReadError::TooFew { .. }) => {}
            done => return done,
        }
        let options = ReadOptions::default();
        let blob = self.read_once(place, metadata.id(), state, &options, report).await?;
        let missing = items.iter().copied().filter(|item| !state.secondary.contains_key(item));
        let (of, missing): (_, Vec<u16>) = (metadata.clone(), missing.collect());
        let cut = blocking(move || share::columns(&of, &blob, &missing)).await?;
        let inconsistent = |_| ReadError::Decode(*metadata.id(), DecodeError::Inconsistent);
        for sliver in cut.map_err(inconsistent)? {
            state.secondary.insert(sliver.index().get(), sliver);
        }
        Ok(())
    }

    /// The files of a quilt. Fetches the columns of the index only.
    ///
    /// # Errors
    /// The columns cannot be read, or the blob is no quilt.
    pub async fn quilt_index(
        &self,
        blob: &BlobId,
        options: &ReadOptions,
    ) -> Result<(QuiltIndex, Report), QuiltReadError> {
        let mut columns = Columns::new(self, blob, options);
        let index = columns.index().await?;
        Ok((index, columns.report))
    }

    /// A file of a quilt, found by its identifier.
    ///
    /// # Errors
    /// The columns cannot be read, or there is no such file.
    pub async fn quilt_file(
        &self,
        blob: &BlobId,
        identifier: &str,
        options: &ReadOptions,
    ) -> Result<(QuiltFile, Report), QuiltReadError> {
        let mut columns = Columns::new(self, blob, options);
        let index = columns.index().await?;
        let patch = index.find(identifier).cloned();
        let patch = patch.ok_or_else(|| QuiltReadError::NoFile(identifier.to_owned()))?;
        let QuiltPatch { columns: range, .. } = patch;
        let file = columns.file(range).await?;
        Ok((file, columns.report))
    }

    /// A file of a quilt, by its patch id: the index is not needed.
    ///
    /// # Errors
    /// The columns cannot be read, or there is no file in them.
    pub async fn quilt_patch(
        &self,
        id: &QuiltPatchId,
        options: &ReadOptions,
    ) -> Result<(QuiltFile, Report), QuiltReadError> {
        let mut columns = Columns::new(self, &id.quilt, options);
        let file = columns.file(id.columns()).await?;
        Ok((file, columns.report))
    }
}

/// Why a quilt could not be read.
#[derive(Debug, thiserror::Error)]
pub enum QuiltReadError {
    /// Its slivers cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not a quilt, or a malformed one.
    #[error(transparent)]
    Quilt(#[from] QuiltError),
    /// There is no such file in it.
    #[error("there is no file {0:?} in the quilt")]
    NoFile(String),
}

/// The columns of a quilt that were fetched so far.
struct Columns<'a> {
    client: &'a Client,
    blob: &'a BlobId,
    state: State,
    report: Report,
}

impl<'a> Columns<'a> {
    fn new(client: &'a Client, blob: &'a BlobId, options: &ReadOptions) -> Self {
        Self { client, blob, state: State::new(blob, options), report: Report::new(options) }
    }

    /// Makes sure of the columns `range`.
    async fn fetch(&mut self, range: Range<u16>) -> Result<Metadata, ReadError> {
        let items: Vec<u16> = range.collect();
        let mut tries = Tries::new(self.blob);
        loop {
            let (committee, nodes) = tries.committee(self.client).await?;
            let place = (&committee, &nodes);
            let ready =
                self.client.ready(place, self.blob, &mut self.state, &mut self.report).await;
            let once = match ready {
                Ok((metadata, state)) => {
                    let (client, report) = (self.client, &mut self.report);
                    client.columns(place, &metadata, &items, state, report).await.map(|()| metadata)
                }
                Err(error) => Err(error),
            };
            match once {
                Ok(metadata) => return Ok(metadata),
                Err(error) => tries.again(self.client, error).await?,
            }
        }
    }

    fn slivers(&self) -> Vec<Sliver<Secondary>> {
        self.state.secondary.values().cloned().collect()
    }

    async fn index(&mut self) -> Result<QuiltIndex, QuiltReadError> {
        let metadata = self.fetch(0..1).await?;
        let first = self.slivers();
        let columns = QuiltView::of_slivers(&metadata, &first)?.index_columns()?;
        let metadata = self.fetch(0..columns).await?;
        let slivers = self.slivers();
        Ok(QuiltView::of_slivers(&metadata, &slivers)?.index()?)
    }

    async fn file(&mut self, range: Range<u16>) -> Result<QuiltFile, QuiltReadError> {
        let metadata = self.fetch(0..0).await?;
        if range.is_empty() || range.end > metadata.shards().min_correct() {
            return Err(QuiltError::BadColumns(range).into());
        }
        let metadata = self.fetch(range.clone()).await?;
        let slivers = self.slivers();
        Ok(QuiltView::of_slivers(&metadata, &slivers)?.file_at(range)?)
    }
}

fn indices(range: Range<usize>) -> Vec<u16> {
    range.filter_map(|index| u16::try_from(index).ok()).collect()
}

/// The bytes `range` of a blob from the rows that cover it, in order.
fn assemble(
    metadata: &Metadata,
    range: &Range<u64>,
    rows: &[(usize, UnverifiedSliver<Primary>)],
) -> Vec<u8> {
    let width = metadata.sliver_len::<Primary>() as u64;
    let mut out = Vec::new();
    for (_, sliver) in rows {
        let start = u64::from(sliver.index.get()) * width;
        let within = |at: u64| {
            let at = at.clamp(start, start + width) - start;
            usize::try_from(at).unwrap_or(sliver.data.len()).min(sliver.data.len())
        };
        out.extend_from_slice(&sliver.data[within(range.start)..within(range.end)]);
    }
    out
}

fn cut(blob: &BlobId, bytes: &[u8], range: &Range<u64>) -> Result<Vec<u8>, ReadError> {
    let at = |offset: u64| usize::try_from(offset).ok();
    let part = at(range.start).zip(at(range.end)).and_then(|(from, to)| bytes.get(from..to));
    let beyond = ReadError::Range { blob: *blob, length: bytes.len() as u64 };
    part.map(<[u8]>::to_vec).ok_or(beyond)
}

impl ReadError {
    /// Whether the writer, not a node, is to blame.
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        matches!(self, Self::Decode(_, DecodeError::Inconsistent))
    }
}
