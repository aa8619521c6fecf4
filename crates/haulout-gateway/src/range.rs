//! The `Range` header, as much of it as clients resuming a NAR use.
//!
//! Nix sends `bytes=<offset>-` when its own transfer was cut. Anything this module does not
//! understand is ignored, as RFC 9110 §14.2 allows: the answer is then the whole NAR with 200.

/// A single byte range as asked for, before the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `bytes=a-`
    From(u64),
    /// `bytes=a-b`, both inclusive, a ≤ b.
    Between(u64, u64),
    /// `bytes=-n`: the last n bytes.
    Last(u64),
}

/// A range that fits: bytes `from .. from + len` of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fitting {
    /// First byte.
    pub(crate) from: u64,
    /// Number of bytes, at least one.
    pub(crate) len: u64,
}

/// Parse a header value; `None` means "ignore it".
pub(crate) fn parse(value: &[u8]) -> Option<Asked> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (number(first), number(last)) {
        (Some(a), Some(b)) if a <= b => Some(Asked::Between(a, b)),
        (Some(a), None) if last.is_empty() => Some(Asked::From(a)),
        (None, Some(n)) if first.is_empty() => Some(Asked::Last(n)),
        _ => None,
    }
}

/// Decimal digits only; a number too large for `u64` lies beyond every NAR, so it becomes the
/// largest one.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

impl Asked {
    /// Where the range starts, when that can be told without knowing the size.
    pub(crate) fn start(self) -> Option<u64> {
        match self {
            Self::From(a) | Self::Between(a, _) => Some(a),
            Self::Last(_) => None,
        }
    }

    /// Cut to `size`; `None` is 416.
    pub(crate) fn fit(self, size: u64) -> Option<Fitting> {
        let (from, end) = match self {
            Self::From(a) => (a, size),
            Self::Between(a, b) => (a, b.saturating_add(1).min(size)),
            Self::Last(n) => (size.saturating_sub(n), size),
        };
        (from < end).then(|| Fitting { from, len: end - from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_what_clients_send() {
        assert_eq!(parse(b"bytes=0-"), Some(Asked::From(0)));
        assert_eq!(parse(b"bytes=17-"), Some(Asked::From(17)));
        assert_eq!(parse(b"Bytes = 17-"), Some(Asked::From(17)));
        assert_eq!(parse(b"bytes=3-9"), Some(Asked::Between(3, 9)));
        assert_eq!(parse(b"bytes=-5"), Some(Asked::Last(5)));
        assert_eq!(parse(b"bytes=99999999999999999999999-"), Some(Asked::From(u64::MAX)));
    }

    #[test]
    fn ignores_everything_else() {
        for odd in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=9-3",
            "bytes=1-2,4-5",
            "bytes=+1-",
            "bytes=0x1-",
            "bytes=--1",
            "lines=1-",
            "bytes=1 -",
            "bytes=a-b",
        ] {
            assert_eq!(parse(odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(parse(b"bytes=\xff-"), None);
    }

    #[test]
    fn fits_to_the_size() {
        assert_eq!(Asked::From(0).fit(10), Some(Fitting { from: 0, len: 10 }));
        assert_eq!(Asked::From(9).fit(10), Some(Fitting { from: 9, len: 1 }));
        assert_eq!(Asked::From(10).fit(10), None);
        assert_eq!(Asked::Between(2, 3).fit(10), Some(Fitting { from: 2, len: 2 }));
        assert_eq!(Asked::Between(2, u64::MAX).fit(10), Some(Fitting { from: 2, len: 8 }));
        assert_eq!(Asked::Between(10, 11).fit(10), None);
        assert_eq!(Asked::Last(3).fit(10), Some(Fitting { from: 7, len: 3 }));
        assert_eq!(Asked::Last(30).fit(10), Some(Fitting { from: 0, len: 10 }));
        assert_eq!(Asked::Last(0).fit(10), None);
        assert_eq!(Asked::From(0).fit(0), None);
    }
}
