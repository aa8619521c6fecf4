//! The code against vectors made with Walrus' own implementations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{blob, blob_id, hex, list, number, section, sha256, shards, text, unhex};
use redstuff::{
    AnySliver, Axis, AxisKind, BlobId, Consistency, DecodingSymbols, EncodedBlob,
    GeneralRecoverySymbol, MerkleNode, MerkleTree, Metadata, MetadataWithId, PairIndex, Primary,
    Recovered, RecoverySymbol, RecoverySymbols, Secondary, ShardIndex, Sliver, SliverIndex,
    UnverifiedMetadata, UnverifiedSliver, bcs::Wire, decode, recover, recover_unproven,
};
use serde_json::Value;

#[test]
fn params() {
    for entry in section("params") {
        let n = shards(entry);
        assert_eq!(u64::from(n.max_faulty()), number(entry, "f"));
        assert_eq!(u64::from(n.min_correct()), number(entry, "min_n_correct"));
        let (kp, ks) = (n.rows(), n.columns());
        assert_eq!(kp as u64, number(entry, "primary_source_symbols"));
        assert_eq!(ks as u64, number(entry, "secondary_source_symbols"));
        let counts = |key| list(entry, key).iter().map(|v| v.as_u64().unwrap()).collect::<Vec<_>>();
        let all = n.as_usize();
        assert_eq!(counts("primary_encoder_original_recovery"), [kp as u64, (all - kp) as u64]);
        assert_eq!(counts("secondary_encoder_original_recovery"), [ks as u64, (all - ks) as u64]);
        assert_eq!(n.source_symbol_count(), number(entry, "source_symbols_per_blob"));
        assert_eq!(n.max_blob_size(), number(entry, "max_blob_size"));
        assert_eq!(n.max_sliver_size(), number(entry, "max_sliver_size"));
        assert_eq!(n.metadata_length(), number(entry, "metadata_length"));
        assert_eq!(n.slivers_to_decode::<Primary>(), kp);
        assert_eq!(n.slivers_to_decode::<Secondary>(), ks);
        assert!(n.symbol_size(n.max_blob_size()).is_ok());
        assert!(n.symbol_size(n.max_blob_size() + 1).is_err());
    }
}

#[test]
fn sizes() {
    for entry in section("sizes") {
        let n = shards(entry);
        let length = number(entry, "unencoded_length");
        if entry.get("error").is_some() {
            assert!(n.symbol_size(length).is_err(), "{entry}");
            continue;
        }
        let size = n.symbol_size(length).unwrap().as_u64();
        assert_eq!(size, number(entry, "symbol_size"));
        let sliver = |symbols: usize| symbols as u64 * size;
        assert_eq!(sliver(n.sliver_symbols::<Primary>()), number(entry, "primary_sliver_len"));
        assert_eq!(sliver(n.sliver_symbols::<Secondary>()), number(entry, "secondary_sliver_len"));
        assert_eq!(n.encoded_length(length).unwrap(), number(entry, "encoded_blob_length"));
        assert_eq!(n.slivers_length(length).unwrap(), number(entry, "encoded_slivers_length"));
    }
}

/// Entries whose number of shards is in the range: the tests run side by side.
fn check_blobs(from: u64, to: u64) {
    let entries = section("blobs").iter();
    for entry in entries.filter(|entry| (from..=to).contains(&number(entry, "n_shards"))) {
        let (n, blob) = (shards(entry), blob(entry));
        assert_eq!(sha256(&blob), text(entry, "blob_sha256"));
        if let Some(error) = entry.get("error") {
            assert_eq!(error, "too_large");
            assert!(n.encode(blob.clone()).is_err() && n.metadata(&blob).is_err());
            continue;
        }
        let encoded = n.encode(blob.clone()).unwrap();
        assert_eq!(encoded.metadata(), &n.metadata(&blob).unwrap(), "{}", text(entry, "id"));
        check_metadata(entry, encoded.metadata());
        check_slivers(entry, &encoded);
        // Verifying a thousand slivers takes a while; a few such blobs are enough.
        let id = text(entry, "id");
        if n.get() < 1000 || ["n1000-A-0", "n1000-A-17", "n1000-B-1000003"].contains(&id) {
            check_decoding(&encoded, &blob);
        }
    }
}

#[test]
fn blobs_of_few_shards() {
    check_blobs(4, 99);
}

#[test]
fn blobs_of_many_shards() {
    check_blobs(100, 999);
}

#[test]
fn blobs_of_public_shards() {
    check_blobs(1000, u64::MAX);
}

/// Compares with a value that only some entries have.
fn same(entry: &Value, key: &str, found: impl FnOnce() -> String) {
    if let Some(expected) = entry.get(key) {
        assert_eq!(expected.as_str().unwrap(), found(), "{key} of {}", text(entry, "id"));
    }
}

fn check_metadata(entry: &Value, metadata: &Metadata) {
    let (n, id) = (metadata.shards(), metadata.id());
    assert_eq!(id.to_string(), text(entry, "blob_id"));
    assert_eq!(hex(id.as_bytes()), text(entry, "blob_id_hex"));
    assert_eq!(hex(metadata.root_hash().as_bytes()), text(entry, "root_hash_hex"));
    assert_eq!(u64::from(metadata.symbol_size().get()), number(entry, "symbol_size"));
    assert_eq!(u64::from(id.rotation(n)), number(entry, "rotation_offset"));
    let bcs = metadata.as_unverified().to_bcs();
    assert_eq!(bcs.len() as u64, number(entry, "blob_metadata_bcs_len"));
    same(entry, "blob_metadata_bcs_hex", || hex(&bcs));
    same(entry, "blob_metadata_bcs_sha256", || sha256(&bcs));
    let with_id = metadata.with_id().to_bcs();
    same(entry, "blob_metadata_with_id_bcs_hex", || hex(&with_id));
    same(entry, "blob_metadata_with_id_bcs_sha256", || sha256(&with_id));
    let digests = |axis: AxisKind| {
        let node = |pair: &redstuff::HashPair| match axis {
            AxisKind::Primary => hex(pair.primary.digest().as_bytes()),
            AxisKind::Secondary => hex(pair.secondary.digest().as_bytes()),
        };
        metadata.hashes().iter().map(node).collect()
    };
    same(entry, "primary_hashes_by_pair_index_hex", || digests(AxisKind::Primary));
    same(entry, "secondary_hashes_by_pair_index_hex", || digests(AxisKind::Secondary));

    assert_eq!(&UnverifiedMetadata::from_bcs(&bcs).unwrap().verify(n, id).unwrap(), metadata);
    assert_eq!(&MetadataWithId::from_bcs(&with_id).unwrap().verify(n, id).unwrap(), metadata);
}

/// The BCS forms by pair index.
fn forms<A: Axis>(encoded: &EncodedBlob) -> Vec<Vec<u8>> {
    let n = encoded.metadata().shards();
    let form = |pair| encoded.sliver::<A>(PairIndex(pair).sliver(n).unwrap()).unwrap().to_bcs();
    (0..n.get()).map(form).collect()
}

fn check_slivers(entry: &Value, encoded: &EncodedBlob) {
    let n = encoded.metadata().shards();
    let (primary, secondary) = (forms::<Primary>(encoded), forms::<Secondary>(encoded));
    if entry.get("primary_bcs_len").is_some() {
        assert_eq!(primary[0].len() as u64, number(entry, "primary_bcs_len"));
        assert_eq!(secondary[0].len() as u64, number(entry, "secondary_bcs_len"));
    }
    same(entry, "all_primary_bcs_sha256", || sha256(primary.concat()));
    same(entry, "all_secondary_bcs_sha256_by_pair_index", || sha256(secondary.concat()));
    let compare = |key: &str, forms: &[Vec<u8>], show: fn(&Vec<u8>) -> String| {
        if entry.get(key).is_some() {
            let expected: Vec<_> = list(entry, key).iter().map(|v| v.as_str().unwrap()).collect();
            assert_eq!(expected, forms.iter().map(show).collect::<Vec<_>>(), "{key}");
        }
    };
    compare("primary_bcs_hex", &primary, |form| hex(form));
    compare("secondary_bcs_hex_by_pair_index", &secondary, |form| hex(form));
    compare("primary_bcs_sha256", &primary, |form| sha256(form));
    compare("secondary_bcs_sha256_by_pair_index", &secondary, |form| sha256(form));

    let sliver =
        |index| encoded.sliver::<Primary>(SliverIndex::new(index)).unwrap().to_unverified();
    same(entry, "sliver_enum_primary0_bcs_hex", || hex(AnySliver::Primary(sliver(0)).to_bcs()));
    let first = PairIndex(0).sliver::<Secondary>(n).unwrap();
    let zero = [SliverIndex::new(0), first].map(|index| {
        hex(AnySliver::Secondary(encoded.sliver(index).unwrap().to_unverified()).to_bcs())
    });
    if let Some(expected) = entry.get("sliver_enum_secondary0_bcs_hex") {
        assert!(zero.iter().any(|form| form == expected.as_str().unwrap()));
    }
    for sample in entry.get("sample_slivers").and_then(Value::as_array).into_iter().flatten() {
        let pair = PairIndex(number(sample, "pair_index").try_into().unwrap());
        let shard = pair.shard(n, encoded.metadata().id()).unwrap();
        assert_eq!(u64::from(shard.0), number(sample, "shard"));
        assert_eq!(shard.pair(n, encoded.metadata().id()), Ok(pair));
        let (row, column) = encoded.pair(pair).unwrap();
        assert_eq!(u64::from(row.index().get()), number(sample, "primary_index"));
        assert_eq!(u64::from(column.index().get()), number(sample, "secondary_index"));
        assert_eq!(sha256(row.to_bcs()), text(sample, "primary_bcs_sha256"));
        assert_eq!(sha256(column.to_bcs()), text(sample, "secondary_bcs_sha256"));
    }
}

fn verified<A: Axis>(
    encoded: &EncodedBlob,
    indices: impl Iterator<Item = usize>,
) -> Vec<Sliver<A>> {
    let sliver = |index| {
        let index = SliverIndex::new(u16::try_from(index).unwrap());
        let sliver = encoded.sliver::<A>(index).unwrap();
        UnverifiedSliver::from_bcs(&sliver.to_bcs()).unwrap()
    };
    UnverifiedSliver::verify_all(indices.map(sliver).collect(), encoded.metadata())
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn check_decoding(encoded: &EncodedBlob, blob: &[u8]) {
    let (metadata, n) = (encoded.metadata(), encoded.metadata().shards());
    let (all, kp, ks) = (n.as_usize(), n.rows(), n.columns());
    let levels = [Consistency::Skip, Consistency::Default, Consistency::Strict];
    // Without any systematic one, with the systematic ones, and a mixture.
    for indices in [all - kp..all, 0..kp, kp / 2..kp / 2 + kp] {
        let slivers = verified::<Primary>(encoded, indices);
        for level in levels {
            assert!(decode(metadata, &slivers, level).unwrap() == blob);
            if blob.len() > 100_000 {
                break;
            }
        }
        assert!(decode(metadata, &slivers[1..], Consistency::Skip).is_err());
    }
    for indices in [all - ks..all, 0..ks] {
        let slivers = verified::<Secondary>(encoded, indices);
        assert!(decode(metadata, &slivers, Consistency::Default).unwrap() == blob);
    }
}

#[test]
fn merkle() {
    for entry in section("merkle") {
        let (count, size) = (number(entry, "n_leaves"), number(entry, "leaf_bytes"));
        let (count, size) = (usize::try_from(count).unwrap(), usize::try_from(size).unwrap());
        let data = common::pattern(text(entry, "pattern"), count * size);
        let tree = MerkleTree::new(data.chunks(size));
        assert_eq!(hex(tree.root().digest().as_bytes()), text(entry, "root_hex"));
        for expected in list(entry, "proofs") {
            let index = usize::try_from(number(expected, "leaf_index")).unwrap();
            let proof = tree.proof(index).unwrap();
            assert_eq!(hex(proof.to_bcs()), text(expected, "proof_bcs_hex"));
            let leaf = &data[index * size..][..size];
            assert!(proof.verifies(leaf, index, count, &tree.root()));
            assert!(!proof.verifies(leaf, index + 1, count, &tree.root()));
            assert!(!proof.verifies(&leaf[1..], index, count, &tree.root()));
            assert!(!proof.verifies(leaf, index, count, &MerkleNode::Empty));
        }
        assert!(tree.proof(count).is_none());
    }
}

/// Symbols for a target from every other pair, in the order of pairs.
fn symbols<T: Axis>(encoded: &EncodedBlob, target: PairIndex) -> Vec<RecoverySymbol<T>> {
    let n = encoded.metadata().shards();
    let pairs = (0..n.get()).map(PairIndex).filter(|pair| *pair != target);
    let symbol = |pair: PairIndex| {
        let sliver = encoded.sliver::<T::Other>(pair.sliver(n).unwrap()).unwrap();
        // `T::Other::Other` is `T`, but the compiler needs the detour over bytes to see it.
        let symbol =
            sliver.expand().recovery_symbol(SliverIndex::new(target.sliver::<T>(n).unwrap().get()));
        RecoverySymbol::<T>::from_bcs(&symbol.unwrap().to_bcs()).unwrap()
    };
    pairs.map(symbol).collect()
}

fn check_recovery<T: Axis>(
    entry: &Value,
    encoded: &EncodedBlob,
    key: &str,
) -> Vec<GeneralRecoverySymbol> {
    let (metadata, n) = (encoded.metadata(), encoded.metadata().shards());
    let pair = PairIndex(number(entry, "target_pair_index").try_into().unwrap());
    let target = pair.sliver::<T>(n).unwrap();
    let index_key = format!("target_{}_sliver_index", T::KIND);
    assert_eq!(u64::from(target.get()), number(entry, &index_key));
    let needed =
        usize::try_from(number(entry, &format!("symbols_needed_for_{}", T::KIND))).unwrap();
    assert_eq!(needed, n.sliver_symbols::<T>());

    let symbols = symbols::<T>(encoded, pair);
    let general: Vec<_> =
        symbols.iter().map(|symbol| GeneralRecoverySymbol::new(target, symbol.clone())).collect();
    for (expected, found) in list(entry, key).iter().zip(&general) {
        assert_eq!(expected.as_str().unwrap(), hex(found.to_bcs()));
        let parsed = GeneralRecoverySymbol::from_bcs(&unhex(expected.as_str().unwrap())).unwrap();
        assert_eq!(&parsed, found);
        assert!(parsed.clone().into_typed::<T>().is_some());
        assert!(parsed.into_typed::<T::Other>().is_none());
    }
    let plain: Vec<_> = symbols.iter().map(|symbol| symbol.symbol.clone()).collect();
    let verified: Vec<_> =
        symbols.into_iter().map(|symbol| symbol.verify(metadata, target).unwrap()).collect();
    let expected = encoded.sliver(target).unwrap();
    // The last ones, so that arithmetic is needed.
    let enough = verified.len() - needed;
    match recover(metadata, target, &verified[enough..]).unwrap() {
        Recovered::Sliver(sliver) => assert_eq!(sliver, expected),
        Recovered::Inconsistent(_) => panic!("an honest blob"),
    }
    assert!(recover(metadata, target, &verified[enough + 1..]).is_err());
    assert_eq!(recover_unproven(metadata, target, &plain[..needed]).unwrap(), expected);
    general
}

#[test]
fn recovery() {
    for entry in section("recovery") {
        let (n, blob) = (shards(entry), blob(entry));
        let encoded = n.encode(blob.clone()).unwrap();
        assert_eq!(encoded.metadata().id(), &blob_id(entry, "blob_id"));
        let primary = check_recovery::<Primary>(
            entry,
            &encoded,
            "general_recovery_symbols_for_primary_bcs_hex",
        );
        let secondary = check_recovery::<Secondary>(
            entry,
            &encoded,
            "general_recovery_symbols_for_secondary_bcs_hex",
        );
        let lists = [
            primary.clone(),
            secondary.clone(),
            primary.iter().chain(&secondary).cloned().collect(),
            primary.iter().zip(&secondary).flat_map(|(a, b)| [a.clone(), b.clone()]).collect(),
        ];
        let expected = text(entry, "list_recovery_symbols_response_bcs_sha256");
        let found = lists.map(|list| sha256(RecoverySymbols(list).to_bcs()));
        println!("{:?}", found.iter().position(|found| found == expected));
        assert!(found.iter().any(|found| found == expected), "{n}");

        let mut response = DecodingSymbols::default();
        assert_eq!(text(entry, "decoding_symbols_target_type"), "primary");
        for target in list(entry, "decoding_symbols_targets") {
            let target = u16::try_from(target.as_u64().unwrap()).unwrap();
            let sources = list(entry, "decoding_symbols_source_pair_indices").iter();
            let symbol = |pair: &Value| {
                let pair = PairIndex(pair.as_u64().unwrap().try_into().unwrap());
                let source = encoded.sliver::<Secondary>(pair.sliver(n).unwrap()).unwrap();
                let symbol = source.expand().decoding_symbol(SliverIndex::new(target)).unwrap();
                redstuff::EitherDecodingSymbol::Primary(symbol)
            };
            response.0.insert(target, sources.map(symbol).collect());
        }
        let bcs = response.to_bcs();
        assert_eq!(hex(&bcs), text(entry, "decoding_symbols_response_bcs_hex"));
        assert_eq!(DecodingSymbols::from_bcs(&bcs).unwrap(), response);
    }
}

#[test]
fn consistency() {
    for entry in section("consistency") {
        let (n, blob) = (shards(entry), blob(entry));
        let encoded = n.encode(blob.clone()).unwrap();
        assert_eq!(encoded.metadata().id(), &blob_id(entry, "honest_blob_id"));
        let altered =
            SliverIndex::<Primary>::new(number(entry, "altered_primary_index").try_into().unwrap());
        let mut bad = encoded.sliver(altered).unwrap().to_unverified();
        let mut data = bad.data.to_vec();
        data[0] ^= 1;
        bad.data = data.into();
        assert!(bad.clone().verify(encoded.metadata()).is_err());

        let bcs = unhex(text(entry, "inconsistent_blob_metadata_bcs_hex"));
        let mut made = encoded.metadata().as_unverified().clone();
        made.hashes[altered.pair(n).unwrap().as_usize()].primary = bad.root(n).unwrap();
        assert_eq!(made.to_bcs(), bcs);
        let metadata = made.verify(n, &blob_id(entry, "inconsistent_blob_id")).unwrap();

        let sliver = |index: &Value| {
            let index = SliverIndex::new(index.as_u64().unwrap().try_into().unwrap());
            let good = || encoded.sliver(index).unwrap().to_unverified();
            let sliver = if index == altered { bad.clone() } else { good() };
            sliver.verify(&metadata).unwrap()
        };
        for outcome in list(entry, "outcomes") {
            let slivers: Vec<_> = list(outcome, "primary_indices").iter().map(sliver).collect();
            for (key, level) in [
                ("skip", Consistency::Skip),
                ("default", Consistency::Default),
                ("strict", Consistency::Strict),
            ] {
                let found = match decode(&metadata, &slivers, level) {
                    Ok(decoded) if decoded == blob => "ok_original".to_owned(),
                    Ok(decoded) => format!("ok_other:{}", sha256(decoded)),
                    Err(_) => "error:VerificationError".to_owned(),
                };
                assert_eq!(found, text(outcome, key), "{outcome}");
            }
        }
        check_proof(entry, &encoded, &metadata, altered);
    }
}

fn check_proof(
    entry: &Value,
    encoded: &EncodedBlob,
    metadata: &Metadata,
    target: SliverIndex<Primary>,
) {
    let n = metadata.shards();
    let expected = unhex(text(entry, "primary_inconsistency_proof_bcs_hex"));
    let proof = redstuff::InconsistencyProof::<Primary>::from_bcs(&expected).unwrap();
    assert_eq!(proof.verify(metadata), Ok(()));
    assert!(proof.verify(encoded.metadata()).is_err());

    let verified: Vec<_> = symbols::<Primary>(encoded, target.pair(n).unwrap())
        .into_iter()
        .map(|symbol| symbol.verify(metadata, target).unwrap())
        .collect();
    match recover(metadata, target, &verified).unwrap() {
        Recovered::Inconsistent(made) => assert_eq!(made.to_bcs(), expected),
        Recovered::Sliver(_) => panic!("the sliver was altered"),
    }
    let mut short = proof.clone();
    short.symbols.pop();
    assert!(short.verify(metadata).is_err());
    short.symbols.push(short.symbols[0].clone());
    assert!(short.verify(metadata).is_err());
}

#[test]
fn rotation_and_decimal_ids() {
    for entry in list(&common::vectors()["sui"], "rotation") {
        let (n, id) = (shards(entry), blob_id(entry, "blob_id"));
        let decimal = text(entry, "blob_id_as_u256_decimal");
        assert_eq!(id.to_decimal(), decimal);
        assert_eq!(BlobId::from_decimal(decimal), Ok(id));
        let shard = PairIndex(0).shard(n, &id).unwrap();
        assert_eq!(u64::from(shard.0), number(entry, "pair0_to_shard"));
        let pair = ShardIndex(0).pair(n, &id).unwrap();
        assert_eq!(u64::from(pair.0), number(entry, "shard0_to_pair"));
    }
}
