//! Parts of blobs, from the slivers that cover them.

use std::ops::Range;

use redstuff::{BlobId, Metadata, Primary, SliverIndex, UnverifiedSliver};

use super::{
    ReadError, ReadOptions, Report, State,
    gather::{self, Goal, Have, blocking},
    recover, share,
    tries::Tries,
};
use crate::{Client, Committee, client::Nodes, limits::RECOVERED_SLIVERS_MAX};

impl Client {
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
        let bytes = self.asking_aggregators(failed, &tries, blob, options, &mut report).await?;
        let part = cut(blob, &bytes, &range)?;
        report.whole = Some(bytes.into());
        Ok((part, report))
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
    pub(super) async fn exactly<A: redstuff::Axis>(
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
        // The range rises, so its ends within a row do.
        let part = sliver.data.get(within(range.start)..within(range.end));
        out.extend_from_slice(part.unwrap_or_default());
    }
    out
}

fn cut(blob: &BlobId, bytes: &[u8], range: &Range<u64>) -> Result<Vec<u8>, ReadError> {
    let at = |offset: u64| usize::try_from(offset).ok();
    let part = at(range.start).zip(at(range.end)).and_then(|(from, to)| bytes.get(from..to));
    let beyond = ReadError::Range { blob: *blob, length: bytes.len() as u64 };
    part.map(<[u8]>::to_vec).ok_or(beyond)
}
