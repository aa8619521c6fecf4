//! Files of quilts, from the columns that they are in.

use std::ops::Range;

use redstuff::{
    BlobId, DecodeError, Metadata, Secondary, Sliver,
    quilt::{QuiltError, QuiltFile, QuiltIndex, QuiltPatch, QuiltPatchId, QuiltView},
};

use super::{ReadError, ReadOptions, Report, State, gather::blocking, share, tries::Tries};
use crate::{Client, Committee, client::Nodes};

impl Client {
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
