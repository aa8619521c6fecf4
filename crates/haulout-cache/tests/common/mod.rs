//! What the cache's tests share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its own part of this, and a test may panic"
)]

use haulout_cache::{Cache, CachedNar, UnixTime};
use haulout_nix::{HashPart, NarHash, PathInfo};

/// A NAR's stand-in: bytes that follow from its number.
pub fn content(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}

pub fn hash_part(number: u64) -> HashPart {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    HashPart::from_bytes(bytes)
}

/// A path info whose fields follow from its number.
pub fn info(number: u64, revision: u64) -> PathInfo {
    let nar = content(number, 100);
    PathInfo {
        path: format!("{}-package-{number}", hash_part(number)).parse().unwrap(),
        nar_hash: NarHash::of(&nar),
        nar_size: 100 + revision,
        references: vec![format!("{}-other", hash_part(number + 1)).parse().unwrap()],
        deriver: None,
        signatures: Vec::new(),
        ca: None,
    }
}

/// Store a NAR the way a transfer does.
pub fn store(cache: &Cache, bytes: &[u8], holders: u32, now: UnixTime) -> bool {
    let hash = NarHash::of(bytes);
    let Some(mut writer) = cache.begin_nar(&hash, bytes.len() as u64, now) else {
        return false;
    };
    for piece in bytes.chunks(7000) {
        if !writer.write(piece) {
            return false;
        }
    }
    writer.finish(&hash, holders, now)
}

pub fn read(nar: &CachedNar) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(nar.size()).unwrap()];
    let mut at = 0;
    while at < all.len() {
        let n = nar.read_at(at as u64, &mut all[at..]).unwrap();
        assert!(n > 0);
        at += n;
    }
    assert_eq!(nar.read_at(all.len() as u64, &mut [0; 4]).unwrap(), 0);
    all
}
