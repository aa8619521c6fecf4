//! Every decompressor on bytes of a stranger: no panic, and no more output than was allowed.

#![no_main]

use std::io::Read;

use haulout_nix::Compression;
use haulout_upstream::decompress::decoder;

/// Bytes taken out at most, as a NarSize would allow.
const OUT_MAX: u64 = 1 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((method, file)) = data.split_first() else { return };
    let method = match method % 5 {
        0 => Compression::Xz,
        1 => Compression::Zstd,
        2 => Compression::Bzip2,
        3 => Compression::Gzip,
        _ => Compression::Brotli,
    };
    if let Ok(decoder) = decoder(&method, file) {
        let mut out = Vec::new();
        let _ = decoder.take(OUT_MAX).read_to_end(&mut out);
        assert!(out.len() as u64 <= OUT_MAX);
    }
});
