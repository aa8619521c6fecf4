//! What must hold for any blob, any number of shards and any choice of slivers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::convert::Infallible;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::subsequence};
use redstuff::{
    Axis, Consistency, DecodeError, EncodedBlob, Primary, Recovered, Secondary, ShardCount, Sliver,
    SliverIndex, decode, decode_unverified, read_range, recover,
};

fn shards() -> impl Strategy<Value = ShardCount> {
    (4..60u16).prop_map(|n| ShardCount::new(n).unwrap())
}

fn encoded() -> impl Strategy<Value = (EncodedBlob, Bytes)> {
    (shards(), prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..20_000)]).prop_map(
        |(n, blob)| {
            let blob = Bytes::from(blob);
            (n.encode(blob.clone()).unwrap(), blob)
        },
    )
}

/// An encoding may be given to other threads.
const _: fn() = || {
    fn for_threads<T: Send + Sync + 'static>() {}
    for_threads::<EncodedBlob>();
};

fn pick<A: Axis>(encoded: &EncodedBlob, indices: &[u16]) -> Vec<Sliver<A>> {
    indices.iter().map(|&index| encoded.sliver(SliverIndex::new(index)).unwrap()).collect()
}

/// Some slivers, exactly enough to decode.
fn enough<A: Axis>(n: ShardCount) -> impl Strategy<Value = Vec<u16>> {
    subsequence((0..n.get()).collect::<Vec<_>>(), n.slivers_to_decode::<A>()).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_enough_slivers_decode(
        ((encoded, blob), primary, secondary) in encoded().prop_flat_map(|(encoded, blob)| {
            let n = encoded.metadata().shards();
            (Just((encoded, blob)), enough::<Primary>(n), enough::<Secondary>(n))
        })
    ) {
        let metadata = encoded.metadata();
        let rows = pick::<Primary>(&encoded, &primary);
        let columns = pick::<Secondary>(&encoded, &secondary);
        for check in [Consistency::Skip, Consistency::Default, Consistency::Strict] {
            prop_assert_eq!(&decode(metadata, &rows, check).unwrap(), &blob);
            prop_assert_eq!(&decode(metadata, &columns, check).unwrap(), &blob);
        }
        let raw: Vec<_> = columns.iter().map(Sliver::to_unverified).collect();
        let length = blob.len() as u64;
        prop_assert_eq!(&decode_unverified(metadata.shards(), length, &raw).unwrap(), &blob);
        let twice: Vec<_> = rows.iter().skip(1).chain(rows.last()).cloned().collect();
        let few = decode(metadata, &twice, Consistency::Skip);
        prop_assert!(matches!(few, Err(DecodeError::TooFew { .. })), "{:?}", few);
    }

    #[test]
    fn all_ways_to_the_metadata_agree((encoded, blob) in encoded(), memory in 0..100_000usize) {
        let n = encoded.metadata().shards();
        prop_assert_eq!(&n.metadata(&blob).unwrap(), encoded.metadata());
        let mut asked = vec![false; blob.len()];
        let read = |offset: u64, out: &mut [u8]| {
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset).unwrap() + out.len();
            out.copy_from_slice(&blob[range.clone()]);
            for asked in &mut asked[range] {
                assert!(!std::mem::replace(asked, true), "a byte is read twice");
            }
            Ok::<_, Infallible>(())
        };
        let streamed = n.metadata_of_source(blob.len() as u64, memory, read).unwrap();
        prop_assert_eq!(&streamed, encoded.metadata());
        prop_assert!(asked.iter().all(|&asked| asked));
    }

    // Large blobs are encoded in slices if only the metadata is wanted.
    #[test]
    fn metadata_of_large_blobs(shards in 4..20u16, length in 200_000..500_000usize) {
        let n = ShardCount::new(shards).unwrap();
        let blob: Vec<u8> = (0..length).map(|i| (i * i / 7 + i) as u8).collect();
        if let Ok(encoded) = n.encode(blob.clone()) {
            prop_assert_eq!(&n.metadata(&blob).unwrap(), encoded.metadata());
        }
    }

    #[test]
    fn slivers_verify_unless_altered(
        (encoded, _) in encoded(), index in any::<u16>(), at in any::<prop::sample::Index>(), bit in 0..8u8
    ) {
        let metadata = encoded.metadata();
        let index = SliverIndex::<Secondary>::new(index % metadata.shards().get());
        let sliver = encoded.sliver(index).unwrap();
        let good = sliver.to_unverified();
        prop_assert_eq!(&good.clone().verify(metadata).unwrap(), &sliver);
        let mut bad = good.clone();
        let mut data = bad.data.to_vec();
        data[at.index(good.data.len())] ^= 1 << bit;
        bad.data = data.into();
        prop_assert!(bad.verify(metadata).is_err());
        let mut other = good.clone();
        let next = (index.get() + 1) % metadata.shards().get();
        other.index = SliverIndex::new(next);
        let same = encoded.sliver(other.index).unwrap().data() == sliver.data();
        prop_assert_eq!(other.verify(metadata).is_ok(), same);
        let mut short = good;
        short.data.truncate(short.data.len() - 1);
        prop_assert!(short.verify(metadata).is_err());
    }

    #[test]
    fn ranges_are_read_from_their_rows(
        (encoded, blob) in encoded(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()
    ) {
        let (a, b) = (a.index(blob.len() + 1), b.index(blob.len() + 1));
        let range = a.min(b)..a.max(b);
        let wanted = range.start as u64..range.end as u64;
        let rows: Vec<_> = encoded.metadata().rows_of_range(wanted.clone()).collect();
        let slivers = pick::<Primary>(&encoded, &rows);
        let found = read_range(encoded.metadata(), wanted, &slivers).unwrap();
        prop_assert_eq!(&found[..], &blob[range]);
        if let Some((_, fewer)) = slivers.split_first() {
            prop_assert!(read_range(encoded.metadata(), a.min(b) as u64..a.max(b) as u64, fewer).is_err());
        }
        let padding = (encoded.metadata().occupied_rows()..).map(SliverIndex::new);
        for index in padding.take_while(|index| index.is_systematic(encoded.metadata().shards())) {
            let sliver = encoded.metadata().padding_sliver(index).unwrap();
            prop_assert!(sliver.verify(encoded.metadata()).is_ok());
        }
    }

    #[test]
    fn any_sliver_is_recovered(
        ((encoded, _), sources, target) in encoded().prop_flat_map(|(encoded, blob)| {
            let n = encoded.metadata().shards();
            (Just((encoded, blob)), enough::<Primary>(n), 0..n.get())
        })
    ) {
        let metadata = encoded.metadata();
        let target = SliverIndex::<Secondary>::new(target);
        let symbols: Vec<_> = pick::<Primary>(&encoded, &sources)
            .iter()
            .map(|source| source.expand().recovery_symbol(target).unwrap())
            .collect();
        let verified: Vec<_> =
            symbols.into_iter().map(|symbol| symbol.verify(metadata, target).unwrap()).collect();
        let expected = Recovered::Sliver(encoded.sliver(target).unwrap());
        prop_assert_eq!(recover(metadata, target, &verified).unwrap(), expected);
    }
}

#[test]
fn a_failing_source_is_reported() {
    let n = ShardCount::new(10).unwrap();
    let error = n.metadata_of_source(1000, 1 << 20, |_, _| Err("gone")).unwrap_err();
    assert_eq!(error, redstuff::StreamError::Read("gone"));
    let large = n.metadata_of_source(u64::MAX, 0, |_, _| Ok::<_, ()>(())).unwrap_err();
    assert!(matches!(large, redstuff::StreamError::TooLarge(_)));
}

#[test]
fn numbers_of_shards() {
    assert!((0..4).all(|n| ShardCount::new(n).is_err()));
    assert!((4..2000).all(|n| ShardCount::new(n).is_ok()));
    assert!(ShardCount::new(u16::MAX).is_err());
    assert_eq!(ShardCount::PUBLIC.get(), 1000);
}

#[test]
fn slivers_of_different_blobs_do_not_mix() {
    let n = ShardCount::new(7).unwrap();
    let (a, b) = (n.encode(&b"one blob"[..]).unwrap(), n.encode(&b"another"[..]).unwrap());
    let mut slivers: Vec<_> = a.slivers::<Primary>().take(2).collect();
    slivers.extend(b.slivers::<Primary>().skip(2).take(1));
    let mixed = decode(a.metadata(), &slivers, Consistency::Skip);
    assert_eq!(mixed, Err(DecodeError::OtherBlob));
}
