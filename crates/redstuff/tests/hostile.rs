//! Bytes that a stranger may have written: refused with an error, without large allocations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use redstuff::{
    AnyInconsistencyProof, AnySliver, AxisKind, BlobId, DecodingSymbols, GeneralRecoverySymbol,
    HashPair, InconsistencyProof, MerkleNode, MerkleProof, MerkleTree, MetadataError,
    MetadataWithId, Primary, RecoverySymbols, Secondary, ShardCount, SliverError, SliverIndex,
    SymbolId, UnverifiedMetadata, UnverifiedPair, UnverifiedSliver,
    bcs::{BcsError, Wire},
    messages::{
        Confirmation, ConfirmationCertificate, InvalidBlobId, ProofOfPossession, ProtocolMessage,
        SignedMessage, SyncShard, SyncShardResponse,
    },
    quilt::{Quilt, QuiltError, QuiltFile, QuiltIndex, QuiltPatchId, QuiltView, QuiltWriteError},
};

fn n(shards: u16) -> ShardCount {
    ShardCount::new(shards).unwrap()
}

/// What parses has one form only, and no prefix of it or addition to it parses.
fn check<T: Wire + PartialEq + std::fmt::Debug>(input: &[u8]) -> Option<T> {
    let shared = Bytes::copy_from_slice(input);
    match T::from_bcs(input) {
        Ok(value) => {
            assert_eq!(value.to_bcs(), input);
            assert_eq!(T::from_shared_bcs(&shared).as_ref(), Ok(&value));
            assert_eq!(T::from_bcs(&[input, &[0]].concat()), Err(BcsError::Trailing(1)));
            if let Some((_, shorter)) = input.split_last() {
                assert!(T::from_bcs(shorter).is_err());
            }
            Some(value)
        }
        Err(error) => {
            assert_eq!(T::from_shared_bcs(&shared), Err(error));
            None
        }
    }
}

fn check_all(input: &[u8]) {
    check::<UnverifiedMetadata>(input);
    check::<MetadataWithId>(input);
    check::<UnverifiedSliver<Primary>>(input);
    check::<UnverifiedPair>(input);
    check::<AnySliver>(input);
    check::<MerkleProof>(input);
    check::<RecoverySymbols>(input);
    check::<GeneralRecoverySymbol>(input);
    check::<DecodingSymbols>(input);
    check::<InconsistencyProof<Secondary>>(input);
    check::<AnyInconsistencyProof>(input);
    check::<ProtocolMessage<Confirmation>>(input);
    check::<ProtocolMessage<InvalidBlobId>>(input);
    check::<ProtocolMessage<ProofOfPossession>>(input);
    check::<ProtocolMessage<SyncShard>>(input);
    check::<SyncShardResponse>(input);
    check::<SignedMessage>(input);
    check::<ConfirmationCertificate>(input);
    check::<QuiltPatchId>(input);
    if let Ok(index) = QuiltIndex::from_bcs(input, 1, 667) {
        assert_eq!(index.to_bcs(), input);
    }
}

/// Valid values of many types.
fn samples() -> Vec<Vec<u8>> {
    let encoded = n(7).encode(vec![5; 300]).unwrap();
    let metadata = encoded.metadata();
    let row = encoded.sliver(SliverIndex::<Primary>::new(2)).unwrap();
    let symbol = row.expand().recovery_symbol(SliverIndex::new(4)).unwrap();
    let general = GeneralRecoverySymbol::new(SliverIndex::new(4), symbol.clone());
    let proof =
        InconsistencyProof::<Secondary> { target: SliverIndex::new(4), symbols: vec![symbol; 3] };
    let mut symbols = DecodingSymbols::default();
    symbols.0.insert(300, vec![general.symbol.clone(); 2]);
    symbols.0.insert(2, vec![]);
    vec![
        metadata.as_unverified().to_bcs(),
        metadata.with_id().to_bcs(),
        row.to_bcs(),
        AnySliver::Primary(row.to_unverified()).to_bcs(),
        RecoverySymbols(vec![general.clone(); 3]).to_bcs(),
        general.to_bcs(),
        symbols.to_bcs(),
        AnyInconsistencyProof::Secondary(proof.clone()).to_bcs(),
        proof.to_bcs(),
        SyncShardResponse(vec![(*metadata.id(), AnySliver::Primary(row.to_unverified()))]).to_bcs(),
    ]
}

#[test]
fn samples_and_their_prefixes() {
    for sample in samples() {
        for end in 0..=sample.len() {
            check_all(&sample[..end]);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(input in vec(any::<u8>(), 0..400)) {
        check_all(&input);
    }

    #[test]
    fn damaged_samples(which in 0..10usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut sample = samples().swap_remove(which);
        let at = at.index(sample.len());
        sample[at] = byte;
        check_all(&sample);
    }

    #[test]
    fn texts(text in "\\PC{0,60}") {
        if let Ok(axis) = text.parse::<AxisKind>() {
            prop_assert_eq!(axis.as_str(), &text);
        }
        if let Ok(symbol) = text.parse::<SymbolId>() {
            prop_assert_eq!(symbol.to_string().parse(), Ok(symbol));
        }
        for parsed in [text.parse::<BlobId>(), BlobId::from_decimal(&text)].into_iter().flatten() {
            prop_assert!(parsed.to_string() == text || parsed.to_decimal() == text);
        }
        if let Ok(id) = text.parse::<QuiltPatchId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn any_blob_as_quilt(mut blob in vec(any::<u8>(), 120..=120), version in 0..3u8, length in 0..40u32) {
        // A header that is nearly right gets further in.
        blob[0] = version;
        blob[1..5].copy_from_slice(&length.to_le_bytes());
        let view = QuiltView::of_blob(n(7), &blob).unwrap();
        if let Ok(index) = view.index() {
            for patch in index.patches() {
                let _ = view.file(patch);
            }
        }
        for start in 0..6 {
            for end in 0..8 {
                let _ = view.file_at(start..end);
            }
        }
    }

    #[test]
    fn quilts_come_back(
        n in 4..40u16,
        files in proptest::collection::btree_map("[a-z./]{1,12}", (vec(any::<u8>(), 0..500), "[a-z]{0,9}"), 1..9),
    ) {
        let n = ShardCount::new(n).unwrap();
        let file = |(identifier, (data, tag)): (&String, &(Vec<u8>, String))| {
            let tags = (!tag.is_empty()).then(|| (tag.clone(), "value".to_owned())).into_iter().collect();
            QuiltFile { identifier: identifier.clone(), tags, data: data.clone() }
        };
        let files: Vec<_> = files.iter().map(file).collect();
        let too_many = files.len() >= n.columns();
        match Quilt::new(n, files.clone()) {
            Err(QuiltWriteError::TooMany { .. }) => prop_assert!(too_many),
            Err(error) => prop_assert!(false, "{}", error),
            Ok(quilt) => {
                let view = QuiltView::of_blob(n, quilt.blob()).unwrap();
                let index = view.index().unwrap();
                prop_assert_eq!(&index, quilt.index());
                let found: Result<Vec<_>, _> = index.patches().iter().map(|p| view.file(p)).collect();
                prop_assert_eq!(found.unwrap(), files);
            }
        }
    }
}

#[test]
fn lengths_that_lie() {
    // 2^31 - 1 hash pairs, then nothing.
    let mut metadata = vec![0, 1];
    metadata.extend_from_slice(&[0; 8]);
    metadata.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]);
    assert!(matches!(UnverifiedMetadata::from_bcs(&metadata), Err(BcsError::TooMany { .. })));
    // A sliver of 2 GiB, then nothing.
    let sliver = [0xff, 0xff, 0xff, 0xff, 0x07];
    let error = UnverifiedSliver::<Primary>::from_bcs(&sliver);
    assert!(matches!(error, Err(BcsError::Truncated { .. })));
    // Lengths that are not in their shortest form, or beyond 31 bits.
    for length in [&[0x80, 0x00][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80; 6]] {
        assert_eq!(MerkleProof::from_bcs(length), Err(BcsError::BadLength));
    }
    let path = [&[33][..], &[0; 33]].concat();
    assert!(matches!(MerkleProof::from_bcs(&path), Err(BcsError::TooMany { .. })));
    // Map keys out of order, or twice.
    for keys in [[1u16, 0], [1, 1], [1, 256]] {
        let mut map = vec![2];
        for key in keys {
            map.extend_from_slice(&key.to_le_bytes());
            map.push(0);
        }
        assert!(matches!(DecodingSymbols::from_bcs(&map), Err(BcsError::Invalid(_))), "{keys:?}");
    }
}

#[test]
fn metadata_that_lies() {
    let encoded = n(7).encode(vec![1; 100]).unwrap();
    let good = encoded.metadata().as_unverified().clone();
    let id = encoded.metadata().id();
    assert!(good.clone().verify(n(7), id).is_ok());
    let wrong_count = Err(MetadataError::HashCount { found: 7, shards: n(10) });
    assert_eq!(good.clone().verify(n(10), id), wrong_count);
    let mut longer = good.clone();
    longer.unencoded_length += 1;
    assert!(matches!(longer.clone().verify(n(7), id), Err(MetadataError::WrongId { .. })));
    longer.unencoded_length = n(7).max_blob_size() + 1;
    assert!(matches!(longer.verify(n(7), id), Err(MetadataError::TooLarge(_))));
    let mut hollow = good.clone();
    hollow.hashes = vec![HashPair { primary: MerkleNode::Empty, secondary: MerkleNode::Empty }; 7];
    assert!(hollow.verify(n(7), id).is_err());
    // An encoding type other than RS2, and another version.
    for (at, value) in [(0, 1), (1, 0), (1, 2)] {
        let mut bcs = good.to_bcs();
        bcs[at] = value;
        let error = UnverifiedMetadata::from_bcs(&bcs);
        assert!(matches!(error, Err(BcsError::UnknownVariant { .. })), "{error:?}");
    }
    let mut other = encoded.metadata().with_id();
    other.id.0[0] ^= 1;
    assert!(other.verify(n(7), id).is_err());
}

#[test]
fn slivers_that_lie() {
    let encoded = n(7).encode(vec![1; 100]).unwrap();
    let metadata = encoded.metadata();
    let good = encoded.sliver(SliverIndex::<Primary>::new(6)).unwrap().to_unverified();
    let verify = |change: fn(&mut UnverifiedSliver<Primary>)| {
        let mut sliver = good.clone();
        change(&mut sliver);
        sliver.verify(metadata).unwrap_err()
    };
    let beyond = verify(|sliver| sliver.index = SliverIndex::new(7));
    assert!(matches!(beyond, SliverError::OutOfRange(_)));
    assert!(encoded.sliver(SliverIndex::<Primary>::new(7)).is_err());
    for size in [0, 1, 4, 7, 9, u16::MAX] {
        let mut sliver = good.clone();
        sliver.symbol_size = size;
        let error = sliver.verify(metadata).unwrap_err();
        assert!(matches!(error, SliverError::SymbolSize { .. }), "{size}");
    }
    let shorter = verify(|sliver| sliver.data.truncate(39));
    assert_eq!(shorter, SliverError::Length { expected: 40, found: 39 });
    let longer = verify(|sliver| sliver.data = vec![0; 48].into());
    assert_eq!(longer, SliverError::Length { expected: 40, found: 48 });
    let altered = verify(|sliver| sliver.data = vec![0; 40].into());
    assert_eq!(altered, SliverError::Hash);
    let zero = UnverifiedSliver::<Primary>::from_bcs(&[0, 0, 0, 0, 0]);
    assert!(matches!(zero, Err(BcsError::Invalid(_))));
}

#[test]
fn proofs_that_lie() {
    let leaves: Vec<_> = (0..9u8).map(|i| [i; 4]).collect();
    let tree = MerkleTree::new(&leaves);
    let proof = tree.proof(8).unwrap();
    let root = tree.root();
    assert!(proof.verifies(&leaves[8], 8, 9, &root));
    // The same path for an index with bits beyond it.
    assert!(!proof.verifies(&leaves[8], 8 + 16, 32, &root));
    assert!(!proof.verifies(&leaves[8], 9, 9, &root));
    let mut longer = proof.clone();
    longer.path.push(MerkleNode::Empty);
    assert!(!longer.verifies(&leaves[8], 8, 9, &root));
    let mut shorter = proof;
    shorter.path.pop();
    assert!(!shorter.verifies(&leaves[8], 8, 9, &root));
    assert_eq!(MerkleTree::new(std::iter::empty::<&[u8]>()).root(), MerkleNode::Empty);
}

#[test]
fn quilts_that_are_refused() {
    let file =
        |identifier: &str| QuiltFile { identifier: identifier.to_owned(), ..Default::default() };
    let refused = |files: Vec<QuiltFile>| Quilt::new(n(10), files).unwrap_err();
    assert_eq!(refused(vec![]), QuiltWriteError::Empty);
    for identifier in ["", "a ", "a\n", "a\tb", "a\u{85}", "a\u{3000}"] {
        let error = refused(vec![file(identifier)]);
        assert!(matches!(error, QuiltWriteError::Identifier { .. }), "{identifier:?}");
    }
    assert!(matches!(refused(vec![file("a"), file("a")]), QuiltWriteError::Identifier { .. }));
    let long = "x".repeat(65_532);
    assert!(matches!(refused(vec![file(&long)]), QuiltWriteError::Identifier { .. }));
    assert!(Quilt::new(n(10), vec![file(&long[1..])]).is_ok());
    let mut tagged = file("a");
    tagged.tags.insert("key".to_owned(), "v".repeat(65_535));
    assert!(matches!(refused(vec![tagged]), QuiltWriteError::Tags { .. }));
    let mut large = file("a");
    large.data = vec![0; usize::try_from(n(10).max_blob_size()).unwrap()];
    assert_eq!(refused(vec![large]), QuiltWriteError::TooLarge { shards: n(10) });
}

#[test]
fn quilts_that_lie() {
    let file = |name: &str| QuiltFile {
        identifier: name.to_owned(),
        data: vec![7; 9],
        ..Default::default()
    };
    let blob = Quilt::new(n(7), vec![file("a"), file("b")]).unwrap().into_blob();
    let symbol = blob.len() / 15;
    assert_eq!(
        QuiltView::of_blob(n(7), &blob[1..]).unwrap_err(),
        QuiltError::NotAQuilt(blob.len() as u64 - 1)
    );
    let view = QuiltView::of_blob(n(7), &blob).unwrap();
    assert!(matches!(view.file_at(2..2), Err(QuiltError::BadColumns(_))));
    assert!(matches!(view.file_at(4..6), Err(QuiltError::BadColumns(_))));
    let mut versioned = blob.clone();
    versioned[0] = 2;
    assert_eq!(QuiltView::of_blob(n(7), &versioned).unwrap().index(), Err(QuiltError::Version(2)));
    let mut long = blob.clone();
    long[1..5].fill(0xff);
    let error = QuiltView::of_blob(n(7), &long).unwrap().index();
    assert_eq!(error, Err(QuiltError::Oversized("the index")));
    let column = usize::from(view.index().unwrap().patches()[0].columns.start);
    let mut long = blob.clone();
    long[column * symbol + 1] = 0xff;
    let view = QuiltView::of_blob(n(7), &long).unwrap();
    let patch = view.index().unwrap().patches()[0].clone();
    assert_eq!(view.file(&patch), Err(QuiltError::Oversized("a file")));

    let encoded = n(7).encode(blob).unwrap();
    let view = QuiltView::of_slivers(encoded.metadata(), &[]).unwrap();
    assert_eq!(view.index(), Err(QuiltError::MissingColumn(0)));
}
