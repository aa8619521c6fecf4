//! Whole blobs.

use std::ops::Range;

use redstuff::{BlobId, Consistency, Metadata, Primary};

use super::{
    ReadError, ReadOptions, Report, State,
    gather::{self, Goal, Have, blocking},
    share,
    tries::Tries,
};
use crate::{Client, Committee, client::Nodes};

impl Client {
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
        let bytes = self.asking_aggregators(failed, &tries, blob, options, &mut report).await?;
        Ok((bytes, report))
    }

    pub(super) async fn read_once(
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
}

fn indices(range: Range<usize>) -> Vec<u16> {
    range.filter_map(|index| u16::try_from(index).ok()).collect()
}
