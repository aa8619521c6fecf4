//! The vectors and what they are made of.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{path::PathBuf, sync::OnceLock};

use data_encoding::HEXLOWER;
use redstuff::{BlobId, ShardCount};
use ring::digest::{SHA256, digest};
use serde_json::Value;

/// The vectors: those of the repository, or the file `REDSTUFF_VECTORS` names.
pub(crate) fn vectors() -> &'static Value {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    VECTORS.get_or_init(|| {
        let own = || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/walrus-vectors.json").into();
        let path = std::env::var_os("REDSTUFF_VECTORS").map_or_else(own, PathBuf::from);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    })
}

/// The entries of a section.
pub(crate) fn section(name: &str) -> &'static [Value] {
    let entries = vectors()[name].as_array().unwrap();
    assert!(!entries.is_empty());
    entries
}

pub(crate) fn number(entry: &Value, key: &str) -> u64 {
    entry[key].as_u64().unwrap_or_else(|| panic!("{key} in {entry}"))
}

pub(crate) fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("{key} in {entry}"))
}

pub(crate) fn list<'a>(entry: &'a Value, key: &str) -> &'a [Value] {
    entry[key].as_array().unwrap_or_else(|| panic!("{key} in {entry}"))
}

pub(crate) fn shards(entry: &Value) -> ShardCount {
    ShardCount::new(number(entry, "n_shards").try_into().unwrap()).unwrap()
}

pub(crate) fn blob_id(entry: &Value, key: &str) -> BlobId {
    text(entry, key).parse().unwrap()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(digest(&SHA256, bytes.as_ref()))
}

/// The documented input patterns.
pub(crate) fn pattern(name: &str, length: usize) -> Vec<u8> {
    match name {
        "A" => (0..length).map(|i| u8::try_from((31 * i + 7) % 251).unwrap()).collect(),
        "B" => {
            let block = |j: u64| digest(&SHA256, &j.to_le_bytes());
            let blocks = (0..length.div_ceil(32) as u64).map(block);
            let mut bytes: Vec<u8> = blocks.flat_map(|b| b.as_ref().to_vec()).collect();
            bytes.truncate(length);
            bytes
        }
        "Z" => vec![0; length],
        "F" => vec![0xff; length],
        other => panic!("pattern {other}"),
    }
}

/// The blob of an entry.
pub(crate) fn blob(entry: &Value) -> Vec<u8> {
    let length = number(entry, "unencoded_length").try_into().unwrap();
    pattern(text(entry, "pattern"), length)
}
