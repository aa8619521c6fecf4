//! Where a NAR lies in a cache.
//!
//! The `URL:` of a narinfo comes from outside and is not covered by its signature. It may name a
//! file of the same cache and nothing else: neither another host (which would make every agent a
//! tool for reaching into networks) nor, for a directory, a file outside of it.

use haulout_nix::{Compression, NarInfo, narinfo};

use crate::UpstreamId;

/// A file of a cache that holds a NAR, perhaps compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLocation {
    /// The cache.
    pub upstream: UpstreamId,
    /// Name of the file, relative to the cache, as it goes into a request.
    pub key: String,
    /// How it is compressed.
    pub compression: Compression,
    /// Bytes of the file as the narinfo states them. Not signed: for progress and for cutting it
    /// into parts, never to be believed.
    pub stated_size: Option<u64>,
    /// Most bytes the file can have: [`compressed_max`] of the signed NarSize.
    pub size_max: u64,
}

/// The most bytes any method needs for `nar_size` bytes. All of them have a way to store what
/// they cannot shrink (bzip2 grows by up to 1 %); an eighth more and 64 KiB leaves room for
/// headers of many small blocks.
#[must_use]
pub const fn compressed_max(nar_size: u64) -> u64 {
    nar_size.saturating_add(nar_size / 8).saturating_add(64 * 1024)
}

impl FileLocation {
    /// The file a narinfo of this cache names. `base` is the cache's URL without a final slash,
    /// for caches that write it in front.
    ///
    /// # Errors
    /// The rule that the URL breaks.
    pub(crate) fn of(
        narinfo: &NarInfo,
        upstream: UpstreamId,
        base: &str,
    ) -> Result<Self, &'static str> {
        Ok(Self {
            upstream,
            key: relative_key(&narinfo.url, base)?.to_owned(),
            compression: narinfo.compression.clone(),
            stated_size: narinfo.file_size,
            size_max: compressed_max(narinfo.info.nar_size),
        })
    }
}

/// The part of `url` below the cache `base`.
///
/// # Errors
/// The rule that it breaks.
pub fn relative_key<'u>(url: &'u str, base: &str) -> Result<&'u str, &'static str> {
    if url.len() > narinfo::URL_BYTES_MAX {
        return Err("its URL is too long");
    }
    let key = match url.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => rest,
        None => url,
    };
    let graphic = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>');
    if key.is_empty() || !key.bytes().all(graphic) {
        return Err("its URL has characters that do not belong there");
    }
    let path = key.split('?').next().unwrap_or_default();
    if path.contains(':') || path.starts_with('/') {
        return Err("its URL leads out of the cache");
    }
    let dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(plain.as_str(), "" | "." | "..")
    };
    let lower = path.to_ascii_lowercase();
    if path.split('/').any(dots) || lower.contains("%2f") || lower.contains("%5c") {
        return Err("its URL leads out of the cache");
    }
    if lower.contains("%00") {
        return Err("its URL has characters that do not belong there");
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_cache_pass() {
        let base = "https://cache.example/team";
        for (url, key) in [
            ("nar/abc.nar.xz", "nar/abc.nar.xz"),
            ("nar/abc.nar?hash=x", "nar/abc.nar?hash=x"),
            ("nar/a+b_c.nar.zst", "nar/a+b_c.nar.zst"),
            ("https://cache.example/team/nar/abc.nar", "nar/abc.nar"),
            ("nar/a..b/...nar", "nar/a..b/...nar"),
        ] {
            assert_eq!(relative_key(url, base), Ok(key), "{url}");
        }
    }

    #[test]
    fn everything_else_does_not() {
        let base = "https://cache.example/team";
        for url in [
            "",
            "/nar/abc",
            "//evil.example/x",
            "https://evil.example/x",
            "http://cache.example/team/x",
            "https://cache.example/teamster/x",
            "https://cache.example/team/../x",
            "https://cache.example/team",
            "file:///etc/shadow",
            "../x",
            "nar/../../x",
            "nar/%2e%2E/x",
            "nar/.%2e/x",
            "nar/..%2fx",
            "nar\\x",
            "nar/a b",
            "nar/a#b",
            "nar//x",
            "nar/./x",
            "nar/\u{e9}",
            "nar/%00",
            "s3://bucket/key",
        ] {
            assert!(relative_key(url, base).is_err(), "{url}");
        }
        assert!(relative_key(&"x".repeat(narinfo::URL_BYTES_MAX + 1), base).is_err());
    }
}
