//! The code against vectors of the library the network uses, and against itself.

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((31 * i + 7) % 251).unwrap()).collect()
}

/// All recovery symbols of one code word.
fn recovery(code: Code, source: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![0; code.recovery() * size];
    code.expand_rows(size, &[source], &mut out, &mut Vec::new());
    out
}

#[test]
fn vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/walrus-vectors.json");
    let own = || path.into();
    let path = std::env::var_os("REDSTUFF_VECTORS").map_or_else(own, std::path::PathBuf::from);
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for entry in vectors["reed_solomon_1d"].as_array().unwrap() {
        let number = |key: &str| usize::try_from(entry[key].as_u64().unwrap()).unwrap();
        let (original, size) = (number("original_count"), number("symbol_bytes"));
        let code = Code::with_counts(original, number("recovery_count"));
        assert_eq!(entry["pattern"], "A");
        let found = recovery(code, &pattern(original * size), size);
        let hash = HEXLOWER.encode(digest(&SHA256, &found).as_ref());
        assert_eq!(entry["recovery_sha256"], hash, "{entry}");
        if let Some(expected) = entry.get("recovery_hex") {
            assert_eq!(expected, &HEXLOWER.encode(&found));
        }
    }
}

/// The library's own encoder, symbol by symbol.
fn reference(code: Code, source: &[u8], size: usize) -> Vec<u8> {
    let recovery = reed_solomon_simd::encode(code.original, code.recovery, source.chunks(size));
    recovery.unwrap().concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn long_shards_and_rows_agree_with_the_library(
        original in 1..40usize,
        extra in 1..40usize,
        // Every other time whole blocks, which take another way.
        half in prop_oneof![1..150usize, (1..8usize).prop_map(|blocks| 32 * blocks)],
        count in prop_oneof![Just(1), 1..20usize],
        seed in any::<u64>(),
    ) {
        let (code, size) = (Code::with_counts(original, extra), 2 * half);
        let byte = |i: usize| (seed.rotate_left(i as u32) ^ (i as u64).wrapping_mul(0x9e37_79b9)) as u8;
        // `count` code words, one row each.
        let words: Vec<Vec<u8>> = (0..count)
            .map(|w| (0..original * size).map(|i| byte(w * 7919 + i)).collect())
            .collect();
        let expected: Vec<_> = words.iter().map(|word| reference(code, word, size)).collect();

        let rows: Vec<_> = words.iter().map(|word| &word[..]).collect();
        let mut out = vec![0; count * extra * size];
        code.expand_rows(size, &rows, &mut out, &mut Vec::new());
        prop_assert_eq!(&out, &expected.concat());

        // The same as long shards: shard `i` is symbol `i` of all words.
        let across = |words: &[Vec<u8>], i: usize| -> Vec<u8> {
            words.iter().flat_map(|word| word[i * size..][..size].to_vec()).collect()
        };
        let shards: Vec<_> = (0..original).map(|i| across(&words, i)).collect();
        let mut recovery = vec![vec![0; count * size]; extra];
        let outputs = recovery.iter_mut().map(|shard| &mut shard[..]).collect();
        code.encode_shards(size, |i| &shards[i], outputs);
        for (t, shard) in recovery.iter().enumerate() {
            prop_assert_eq!(shard, &across(&expected, t));
        }

        // Any `original` symbols bring the rest back.
        let mut all: Vec<_> = shards.iter().chain(&recovery).cloned().enumerate().collect();
        all.sort_by_key(|(i, _)| byte(*i + 31));
        let known: Vec<_> = all.iter().take(original).map(|(i, s)| (*i, &s[..])).collect();
        let erasures = Erasures::new(code, known.iter().map(|(i, _)| *i));
        let missing: Vec<_> = (0..original).filter(|&i| erasures.is_missing(i)).collect();
        let mut found = vec![vec![0; count * size]; missing.len()];
        let outputs = missing.iter().copied().zip(found.iter_mut().map(|shard| &mut shard[..]));
        erasures.decode_shards(size, &known, outputs.collect());
        for (i, found) in missing.iter().zip(&found) {
            prop_assert_eq!(found, &shards[*i]);
        }
    }
}
