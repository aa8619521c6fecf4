use super::*;
use crate::{HashPart, content_address::Method, hash::HashAlgorithm};
use proptest::prelude::*;

const GOOD: &str = "StorePath: /nix/store/1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b
URL: nar/0pn3zyff60vw6c988sa9s9b6lbhlxk697rg6vlc5lcnc6kggfja7.nar
Compression: none
FileHash: sha256:0pn3zyff60vw6c988sa9s9b6lbhlxk697rg6vlc5lcnc6kggfja7
FileSize: 576
NarHash: sha256:0pn3zyff60vw6c988sa9s9b6lbhlxk697rg6vlc5lcnc6kggfja7
NarSize: 576
References: 1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b ad3awvkb1cigglj0c0rdl7xz73mcpr84-leaf-a
Deriver: ad3awvkb1cigglj0c0rdl7xz73mcpr84-lib-b.drv
Sig: h3test-1:kqdg1UDYgdzE6KANRbJfFHmJQ+xnNjTSiK+drXPfQpBU3vwzXhHwpniAYKU4GdUe1Z5UxmLpHdYjkNTQHepVBg==
CA: fixed:r:sha256:0pn3zyff60vw6c988sa9s9b6lbhlxk697rg6vlc5lcnc6kggfja7
";

fn parse(text: &str) -> Result<NarInfo, NarInfoError> {
    NarInfo::parse(text.as_bytes(), &StoreDir::default())
}

/// `GOOD` with one line replaced by `new` (which may be empty, or several lines).
fn with(field: &str, new: &str) -> String {
    let start = GOOD.find(&format!("{field}:")).unwrap();
    let end = start + GOOD[start..].find('\n').unwrap() + 1;
    [&GOOD[..start], new, &GOOD[end..]].concat()
}

#[test]
fn canonical_text_survives_a_round_trip() {
    let parsed = parse(GOOD).unwrap();
    assert_eq!(parsed.to_text(&StoreDir::default()), GOOD);
    assert_eq!(parsed.info.references.len(), 2);
}

#[test]
fn every_missing_or_doubled_field_is_noticed() {
    for (field, required) in [
        ("StorePath", true),
        ("URL", true),
        ("Compression", false),
        ("FileHash", false),
        ("FileSize", false),
        ("NarHash", true),
        ("NarSize", true),
        ("References", false),
        ("Deriver", false),
        ("CA", false),
    ] {
        let without = parse(&with(field, ""));
        assert_eq!(without.is_err(), required, "{field}");
        if required {
            assert_eq!(without, Err(NarInfoError::Missing { field }));
            let empty = parse(&with(field, &format!("{field}: \n")));
            assert_eq!(empty, Err(NarInfoError::Missing { field }));
        }
        let line = GOOD.lines().find(|line| line.starts_with(field)).unwrap();
        let twice = with(field, &format!("{line}\n{line}\n"));
        assert_eq!(parse(&twice), Err(NarInfoError::Duplicate { field }));
    }
    assert_eq!(parse(&with("Compression", "")).unwrap().compression, Compression::Bzip2);
    assert_eq!(
        parse(&with("Compression", "Compression: \n")).unwrap().compression,
        Compression::Bzip2
    );
    assert_eq!(parse(&with("Deriver", "Deriver: unknown-deriver\n")).unwrap().info.deriver, None);
    assert_eq!(parse(&with("CA", "CA: \n")).unwrap().info.ca, None);
    assert_eq!(parse(&with("FileSize", "FileSize: 0\n")).unwrap().file_size, None);
    assert_eq!(parse(&with("References", "References: \n")).unwrap().info.references, []);
}

#[test]
fn the_shape_of_lines_is_strict() {
    let cases = [
        ("empty", String::new(), NarInfoError::NoFinalNewline),
        ("no final newline", GOOD.trim_end().to_owned(), NarInfoError::NoFinalNewline),
        ("crlf", GOOD.replace('\n', "\r\n"), NarInfoError::ControlCharacter { line: 1 }),
        ("missing space", with("References", "References:\n"), NarInfoError::Line { line: 8 }),
        (
            "missing space before a value",
            GOOD.replace("URL: ", "URL:"),
            NarInfoError::Line { line: 2 },
        ),
        ("blank line before Sig", GOOD.replace("Sig:", "\nSig:"), NarInfoError::Line { line: 10 }),
        ("blank line at the end", format!("{GOOD}\n"), NarInfoError::Line { line: 12 }),
        ("only a newline", "\n".to_owned(), NarInfoError::Line { line: 1 }),
        ("no colon", format!("{GOOD}hello\n"), NarInfoError::Line { line: 12 }),
        ("no key", format!("{GOOD}: x\n"), NarInfoError::Line { line: 12 }),
        ("html", "<html><body>Log in</body></html>\n".to_owned(), NarInfoError::Line { line: 1 }),
        (
            "nul",
            GOOD.replace("lib-b\nURL", "lib-b\0\nURL"),
            NarInfoError::ControlCharacter { line: 1 },
        ),
    ];
    for (name, text, error) in cases {
        assert_eq!(parse(&text), Err(error), "{name}");
    }
    assert_eq!(NarInfo::parse(b"A: \xff\n", &StoreDir::default()), Err(NarInfoError::NotUtf8));
    let long = format!("{GOOD}X: {}\n", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(parse(&long), Err(NarInfoError::TooLong));
}

#[test]
fn values_are_strict() {
    let sig = GOOD.lines().find_map(|line| line.strip_prefix("Sig: h3test-1:")).unwrap();
    for (field, value) in [
        ("StorePath", "/gnu/store/1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b"),
        ("StorePath", "1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b"),
        ("StorePath", "/nix/store/1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b/x"),
        ("StorePath", " /nix/store/1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b"),
        ("URL", "nar/a b.nar"),
        ("URL", " "),
        ("Compression", "../x"),
        ("FileHash", "x"),
        ("FileSize", "-1"),
        ("FileSize", "x"),
        ("NarHash", "sha1:143xibwh31h9bvxzalr0sjvbbvpa6ffs"),
        ("NarSize", "0"),
        ("NarSize", "+576"),
        ("NarSize", "0576"),
        ("NarSize", "576 "),
        ("NarSize", "18446744073709551616"),
        ("References", "/nix/store/1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b"),
        ("References", "Sig:"),
        ("Deriver", ""),
        ("Deriver", "unknown"),
        ("Sig", ""),
        ("Sig", "nocolon"),
        ("Sig", "h3test-1:"),
        ("Sig", "h3test-1:AAAA"),
        ("Sig", &format!(":{sig}")),
        ("CA", "fixed:r"),
        ("CA", "x"),
    ] {
        let text = with(field, &format!("{field}: {value}\n"));
        assert!(parse(&text).is_err(), "{field}: {value}");
    }
}

#[test]
fn order_unknown_fields_and_unsorted_references_are_accepted() {
    let lines: Vec<&str> = GOOD.lines().rev().collect();
    let mut reversed = format!("Future: \nX-Y: a: b\n{}\n", lines.join("\n"));
    assert_eq!(parse(&reversed), parse(GOOD));
    reversed = with(
        "References",
        "References: ad3awvkb1cigglj0c0rdl7xz73mcpr84-leaf-a  1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-lib-b ad3awvkb1cigglj0c0rdl7xz73mcpr84-leaf-a \n",
    );
    assert_eq!(parse(&reversed), parse(GOOD));
}

#[test]
fn many_values_are_bounded() {
    let line = GOOD.lines().find(|line| line.starts_with("Sig")).unwrap();
    let lines = format!("{line}\n").repeat(SIGNATURES_MAX + 1);
    let error = NarInfoError::TooMany { field: "Sig", max: SIGNATURES_MAX };
    assert_eq!(parse(&with("Sig", &lines)), Err(error));
    let all = "1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-b ".repeat(REFERENCES_MAX + 1);
    let error = NarInfoError::TooMany { field: "References", max: REFERENCES_MAX };
    assert_eq!(parse(&with("References", &format!("References: {all}\n"))), Err(error));
}

#[test]
fn a_raw_narinfo_points_back_at_the_agent() {
    let raw = NarInfo::raw(parse(GOOD).unwrap().info);
    let url = "nar/1clkzc7l9h1q3vx2wbb4rck9plpyi9rh-0pn3zyff60vw6c988sa9s9b6lbhlxk697rg6vlc5lcnc6kggfja7.nar";
    assert_eq!(raw.url, url);
    assert_eq!(parse(&raw.to_text(&StoreDir::default())), Ok(raw));
}

prop_compose! {
    fn store_path()(hash: [u8; 20], name in "[a-zA-Z0-9+_?=][a-zA-Z0-9+._?=-]{0,40}") -> StorePath {
        StorePath::new(HashPart::from_bytes(hash), name.parse().unwrap())
    }
}

prop_compose! {
    fn signature()(name in "[!-9;-~]{1,20}", bytes: [u8; 32]) -> Signature {
        let mut long = [0; 64];
        long[..32].copy_from_slice(&bytes);
        Signature::new(&name, long).unwrap()
    }
}

prop_compose! {
    fn narinfo()(
        path in store_path(),
        nar_hash: [u8; 32],
        nar_size in 1u64..,
        references in prop::collection::vec(store_path(), 0..5),
        deriver in prop::option::of(store_path()),
        signatures in prop::collection::vec(signature(), 0..4),
        ca in prop::option::of(any::<[u8; 32]>()),
        url in "[!-~]{1,40}",
        compression in prop::sample::select(vec!["none", "xz", "zstd", "gzip", "br", "bzip2", "lz4"]),
        file_size in prop::option::of(1u64..),
    ) -> NarInfo {
        let sha256 = |bytes: &[u8]| AnyHash::new(HashAlgorithm::Sha256, bytes).unwrap();
        let mut info = PathInfo {
            path, nar_hash: NarHash::from_bytes(nar_hash), nar_size, references, deriver, signatures,
            ca: ca.map(|bytes| ContentAddress::new(Method::Text, sha256(&bytes)).unwrap()),
        };
        info.normalise();
        let text = with("Compression", &format!("Compression: {compression}\n"));
        let compression = parse(&text).unwrap().compression;
        let file_hash = ca.map(|bytes| sha256(&bytes));
        NarInfo { info, url, compression, file_hash, file_size }
    }
}

proptest! {
    #[test]
    fn parsing_inverts_writing(narinfo in narinfo()) {
        let text = narinfo.to_text(&StoreDir::default());
        prop_assert_eq!(parse(&text), Ok(narinfo));
    }

    #[test]
    fn damaged_texts_never_panic_and_reparse_the_same(at in 0..GOOD.len(), byte: u8, cut: bool) {
        let mut text = GOOD.as_bytes().to_vec();
        text[at] = byte;
        if cut {
            text.truncate(at);
        }
        let dir = StoreDir::default();
        if let Ok(parsed) = NarInfo::parse(&text, &dir) {
            prop_assert_eq!(NarInfo::parse(parsed.to_text(&dir).as_bytes(), &dir), Ok(parsed));
        }
    }
}
