//! Slivers that were made here instead of fetched: verified, and given to a source that keeps them for others.

use redstuff::{
    Axis, Metadata, Primary, Secondary, Sliver, SliverError, SliverIndex, UnverifiedSliver,
    bcs::Wire,
};

use super::gather::Have;
use crate::{Client, limits::RECOVERED_SLIVERS_MAX};

/// Gives away a sliver that was rebuilt.
pub(super) fn sliver<A: Axis>(client: &Client, metadata: &Metadata, sliver: &Sliver<A>) {
    if client.source.is_shared()
        && let Ok(pair) = sliver.index().pair(metadata.shards())
    {
        client.source.rebuilt(metadata, A::KIND, pair, sliver.to_bcs().into());
    }
}

/// Gives away the rows of a blob that were not at hand before it was decoded. The blob has passed a
/// check that every row of it has the hash in the metadata.
pub(super) fn rows(client: &Client, metadata: &Metadata, blob: &[u8], have: &Have<Primary>) {
    if !client.source.is_shared() {
        return;
    }
    let width = metadata.sliver_len::<Primary>();
    let missing = (0..metadata.occupied_rows()).filter(|row| !have.contains_key(row));
    for row in missing.take(RECOVERED_SLIVERS_MAX) {
        // Rising, and within the blob.
        let at = |row: u16| (usize::from(row) * width).min(blob.len());
        let mut data = blob[at(row)..at(row.saturating_add(1))].to_vec();
        data.resize(width, 0);
        let index = SliverIndex::<Primary>::new(row);
        let Ok(pair) = index.pair(metadata.shards()) else { continue };
        let symbol_size = metadata.symbol_size().get();
        let sliver = UnverifiedSliver::<Primary> { data: data.into(), symbol_size, index };
        client.source.rebuilt(metadata, Primary::KIND, pair, sliver.to_bcs().into());
    }
}

/// Systematic secondary slivers, out of the blob.
pub(super) fn columns(
    metadata: &Metadata,
    blob: &[u8],
    wanted: &[u16],
) -> Result<Vec<Sliver<Secondary>>, SliverError> {
    let n = metadata.shards();
    let symbol = metadata.symbol_size().as_usize();
    let cut = |&column: &u16| {
        let mut data = vec![0; n.rows() * symbol];
        for (row, to) in data.chunks_exact_mut(symbol).enumerate() {
            let start = (row * n.columns() + usize::from(column)) * symbol;
            // What is beyond the end is zero.
            let from = blob.get(start.min(blob.len())..(start + symbol).min(blob.len()));
            let from = from.unwrap_or_default();
            to[..from.len()].copy_from_slice(from);
        }
        let (index, symbol_size) = (SliverIndex::new(column), metadata.symbol_size().get());
        UnverifiedSliver::<Secondary> { data: data.into(), symbol_size, index }.verify(metadata)
    };
    wanted.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use redstuff::ShardCount;

    #[test]
    fn columns_of_a_blob_are_its_secondary_slivers() {
        for length in [1, 55, 56, 57, 1000] {
            let n = ShardCount::new(10).unwrap();
            let blob: Vec<u8> = (0..length).map(|at| (at * 7 + 1) as u8).collect();
            let encoded = n.encode(blob.clone()).unwrap();
            let all: Vec<u16> = (0..n.min_correct()).collect();
            let cut = columns(encoded.metadata(), &blob, &all).unwrap();
            let same = |sliver: &Sliver<Secondary>| {
                encoded.sliver(sliver.index()).unwrap().to_bcs() == sliver.to_bcs()
            };
            assert!(cut.len() == 7 && cut.iter().all(same));
            // Another blob has no such columns.
            assert!(columns(encoded.metadata(), &vec![9; length], &all).is_err());
        }
    }
}
