//! From the path of a request to what is asked for.
//!
//! The raw path is matched byte by byte and never decoded (but for log names), so no spelling with
//! `..`, `%2e` or
//! `//` can mean anything: what is not exactly one of the shapes below does not exist.

use std::borrow::Cow;

use haulout_nix::{HashPart, NarHash, StorePath};

use crate::blobs;

/// Characters of a hash part.
const HASH_PART_CHARS: usize = 32;
/// Longest `/log/` or `/api/v1/why/` argument looked at, in bytes as sent: a base name is at most
/// 244 characters, a store directory before it and percent escapes leave room to spare.
const ARGUMENT_BYTES_MAX: usize = 2048;

/// Everything a client can ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/nix-cache-info`
    CacheInfo,
    /// `/<hash part>.narinfo`
    NarInfo(HashPart),
    /// `/nar/<hash part>-<nar hash>.nar`
    Nar(HashPart, NarHash),
    /// `/<hash part>.ls`
    Listing(HashPart),
    /// `/log/<base name>`
    Log(String),
    /// `/`
    Index,
    /// `/page.css`
    PageStyle,
    /// `/page.js`
    PageScript,
    /// `/metrics`
    Metrics,
    /// `/api/v1/...`
    Control(Control),
    /// `/v1/blobs/<blob id>`
    Blob([u8; 32]),
    /// Everything else.
    Nothing,
}

/// The control interface.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// `status`
    Status,
    /// `peers`
    Peers,
    /// `events`: the sections of the page as they change.
    Events,
    /// `why/<store path, base name or hash part>`; `None` when the argument is none of these.
    Why(Option<HashPart>),
    /// Not part of it.
    Unknown,
}

impl Route {
    /// The route of a request path (without query).
    pub(crate) fn of(path: &str) -> Self {
        let Some(rest) = path.strip_prefix('/') else {
            return Self::Nothing;
        };
        if let Some(hash) = rest.strip_suffix(".narinfo") {
            return hash_part(hash).map_or(Self::Nothing, Self::NarInfo);
        }
        if let Some(file) = rest.strip_prefix("nar/") {
            return nar_file(file).map_or(Self::Nothing, |(path, hash)| Self::Nar(path, hash));
        }
        if let Some(control) = rest.strip_prefix("api/v1/") {
            return Self::Control(Control::of(control));
        }
        if let Some(id) = rest.strip_prefix("v1/blobs/") {
            return blobs::parse_id(id).map_or(Self::Nothing, Self::Blob);
        }
        if let Some(name) = rest.strip_prefix("log/") {
            return base_name(name).map_or(Self::Nothing, |path| Self::Log(path.to_string()));
        }
        if let Some(hash) = rest.strip_suffix(".ls") {
            return hash_part(hash).map_or(Self::Nothing, Self::Listing);
        }
        match rest {
            "nix-cache-info" => Self::CacheInfo,
            "" => Self::Index,
            "page.css" => Self::PageStyle,
            "page.js" => Self::PageScript,
            "metrics" => Self::Metrics,
            _ => Self::Nothing,
        }
    }
}

impl Control {
    fn of(rest: &str) -> Self {
        match rest {
            "status" => Self::Status,
            "peers" => Self::Peers,
            "events" => Self::Events,
            _ => match rest.strip_prefix("why/") {
                Some(argument) => Self::Why(store_path_or_hash(argument)),
                None => Self::Unknown,
            },
        }
    }
}

fn hash_part(text: &str) -> Option<HashPart> {
    (text.len() == HASH_PART_CHARS).then(|| text.parse().ok())?
}

/// `<hash part>-<nar hash>.nar`
fn nar_file(file: &str) -> Option<(HashPart, NarHash)> {
    let stem = file.strip_suffix(".nar")?;
    let (path, hash) = stem.split_once('-')?;
    Some((hash_part(path)?, nar_hash(hash)?))
}

/// The URL names the hash without its algorithm.
fn nar_hash(text: &str) -> Option<NarHash> {
    NarHash::from_nix32(text).ok()
}

fn base_name(raw: &str) -> Option<StorePath> {
    decode(raw)?.parse().ok()
}

/// A hash part, a base name or a full path in any store directory.
fn store_path_or_hash(raw: &str) -> Option<HashPart> {
    let text = decode(raw)?;
    let last = text.trim_end_matches('/').rsplit('/').next()?;
    hash_part(last).or_else(|| last.parse::<StorePath>().ok().map(|path| path.hash_part()))
}

/// Undo percent escapes; `None` for broken ones, for what is not UTF-8 and for what is too long.
fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if raw.len() > ARGUMENT_BYTES_MAX {
        return None;
    }
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = raw.bytes();
    let mut out = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' { hex(bytes.next()?)? << 4 | hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0c15iabfrx50h41w8j9yjhdc7hxpwhld";
    const NAR: &str = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";

    #[test]
    fn the_shapes_nix_asks_for() {
        let hash: HashPart = HASH.parse().unwrap();
        let nar: NarHash = format!("sha256:{NAR}").parse().unwrap();
        assert_eq!(Route::of("/nix-cache-info"), Route::CacheInfo);
        assert_eq!(Route::of(&format!("/{HASH}.narinfo")), Route::NarInfo(hash));
        assert_eq!(Route::of(&format!("/{HASH}.ls")), Route::Listing(hash));
        assert_eq!(Route::of(&format!("/nar/{HASH}-{NAR}.nar")), Route::Nar(hash, nar));
        assert_eq!(
            Route::of(&format!("/log/{HASH}-hello.drv")),
            Route::Log(format!("{HASH}-hello.drv"))
        );
        assert_eq!(Route::of(&format!("/log/{HASH}-a%3Fb")), Route::Log(format!("{HASH}-a?b")));
        assert_eq!(Route::of("/"), Route::Index);
        assert_eq!(Route::of("/api/v1/status"), Route::Control(Control::Status));
        assert_eq!(Route::of("/api/v1/peers"), Route::Control(Control::Peers));
        for asked in [
            HASH.into(),
            format!("{HASH}-x"),
            format!("/nix/store/{HASH}-x"),
            format!("%2Fnix%2Fstore%2F{HASH}-x"),
            format!("/nix/store/{HASH}-x/"),
        ] {
            assert_eq!(
                Route::of(&format!("/api/v1/why/{asked}")),
                Route::Control(Control::Why(Some(hash))),
                "{asked}"
            );
        }
        assert_eq!(Route::of("/api/v1/why/hello"), Route::Control(Control::Why(None)));
        assert_eq!(Route::of("/api/v1/reload"), Route::Control(Control::Unknown));
        let blob = format!("/v1/blobs/{}", "A".repeat(43));
        assert_eq!(Route::of(&blob), Route::Blob([0; 32]));
    }

    #[test]
    fn nothing_else_exists() {
        let upper = HASH.to_uppercase();
        for path in [
            "",
            "*",
            "nix-cache-info",
            "//nix-cache-info",
            "/nix-cache-info/",
            "/.narinfo",
            "/x.narinfo",
            "/nar/",
            "/nar/.nar",
            "/nar/../nix-cache-info",
            "/%2e%2e/nix-cache-info",
            "/realisations/sha256:00!out.doi",
            "/log/",
            "/log/..",
            "/log/%2e%2e",
            "/log/%",
            "/log/%f",
            "/log/%ff",
            "/log/../../etc/passwd",
            "/debuginfo/1234",
            "/api/v2/status",
            "/v1/blobs/",
            "/v1/blobs/by-object-id/0x1",
            &format!("/v1/blobs/{}", "A".repeat(42)),
            &format!("/v1/blobs/{}B", "A".repeat(42)),
            &format!("/v1/blobs/{}/", "A".repeat(43)),
            &format!("/v1/blobs/{}+", "A".repeat(42)),
            "/api",
            &format!("/{upper}.narinfo"),
            &format!("/{HASH}.narinfo/"),
            &format!("/{HASH}x.narinfo"),
            &format!("/nar/{HASH}.nar"),
            &format!("/nar/{HASH}-{NAR}.nar.xz"),
            &format!("/nar/{HASH}-{HASH}.nar"),
            &format!("/nar/{NAR}-{HASH}.nar"),
            &format!("/nar/{HASH}-{}.nar", "z".repeat(52)),
            &format!("/{}.narinfo", "e".repeat(32)),
            &format!("/log/{}", "a".repeat(5000)),
        ] {
            assert_eq!(Route::of(path), Route::Nothing, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_panic(path in ".*") {
            let _ = Route::of(&path);
        }

        #[test]
        fn nor_a_nearly_right_one(path in "/(nar/|log/|v1/blobs/|api/v1/why/)?[0-9a-zA-Z_%/.-]{0,90}(\\.nar|\\.ls|\\.narinfo)?") {
            let _ = Route::of(&path);
        }
    }
}
