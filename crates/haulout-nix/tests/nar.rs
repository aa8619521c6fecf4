//! NARs out of the file system, in any order, and back into it.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly too")]

mod common;

use common::{Tree, decode, nested, put, read_all, tree};
use haulout_nix::{
    NarHash,
    nar::{self, Cursor, Decoder, Layout, NarDigest, NarErrorKind},
};
use proptest::prelude::*;
use std::{fs, io, os::unix::fs::symlink, path::Path, process::Command};

fn dumped(path: &Path) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    nar::dump(path, &mut out).map(|()| out)
}

fn sample() -> Tree {
    Tree::dir([
        ("bin", Tree::dir([("run", Tree::File { data: vec![7; 300_000], executable: true })])),
        ("empty", Tree::dir([])),
        ("lib", Tree::dir([("a", Tree::file(b"1234567")), ("b", Tree::file(b"12345678"))])),
        ("lib-link", Tree::Link(b"lib/../../..".to_vec())),
        ("zero", Tree::file(b"")),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_way_gives_the_same_nar(
        tree in tree(),
        piece in prop_oneof![1usize..40, Just(4096), Just(1 << 20)],
        ranges in prop::collection::vec((any::<prop::sample::Index>(), 1usize..3000), 20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        tree.create(&path).unwrap();
        let nar = tree.nar();
        prop_assert!(dumped(&path).unwrap() == nar);

        let layout = Layout::scan(&path).unwrap();
        prop_assert_eq!(layout.nar_size(), nar.len() as u64);
        prop_assert!(read_all(&layout, piece).unwrap() == nar);
        let mut cursor = Cursor::default();
        for (at, len) in ranges {
            let at = at.index(nar.len() + 1);
            let want = &nar[at..nar.len().min(at + len)];
            let mut buf = vec![0xee; len];
            let got = layout.read_at(at as u64, &mut buf).unwrap();
            prop_assert!(&buf[..got] == want);
            let got = layout.read_with(&mut cursor, at as u64, &mut buf).unwrap();
            prop_assert!(&buf[..got] == want);
        }

        prop_assert!(decode(&nar, piece).unwrap() == tree);
        let again = dir.path().join("again");
        let digest = nar::restore(&nar[..], &again).unwrap();
        prop_assert_eq!(digest, NarDigest { hash: NarHash::of(&nar), size: nar.len() as u64 });
        prop_assert!(dumped(&again).unwrap() == nar);
        prop_assert_eq!(nar::check(&nar[..]).unwrap(), digest);
        prop_assert_eq!(nar::hash_path(&path).unwrap(), digest);
    }

    #[test]
    fn damage_is_refused_or_canonical(
        tree in tree(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut: prop::sample::Index,
        piece in 1usize..50,
    ) {
        let whole = tree.nar();
        let mut nar = whole.clone();
        for (at, byte) in damage {
            let at = at.index(nar.len());
            nar[at] = byte;
        }
        if let Ok(decoded) = decode(&nar, piece) {
            prop_assert!(decoded.nar() == nar);
        }
        let cut = cut.index(whole.len());
        prop_assert!(decode(&whole[..cut], piece).is_err());
        prop_assert!(nar::check(&whole[..cut]).is_err());
        prop_assert!(decode(&[&whole[..], b"\0"].concat(), piece).is_err());
    }
}

#[test]
fn the_root_may_be_anything() {
    let dir = tempfile::tempdir().unwrap();
    let trees = [
        Tree::file(b"hello"),
        Tree::File { data: vec![], executable: true },
        Tree::Link(b"/nowhere".to_vec()),
        Tree::dir([]),
    ];
    for (i, tree) in trees.into_iter().enumerate() {
        let path = dir.path().join(i.to_string());
        tree.create(&path).unwrap();
        assert_eq!(dumped(&path).unwrap(), tree.nar());
        let layout = Layout::scan(&path).unwrap();
        assert_eq!(read_all(&layout, 7).unwrap(), tree.nar());
        let again = dir.path().join(format!("{i}-again"));
        nar::restore(&tree.nar()[..], &again).unwrap();
        assert_eq!(dumped(&again).unwrap(), tree.nar());
    }
}

#[test]
fn depth_is_limited_where_nix_limits_it() {
    let dir = tempfile::tempdir().unwrap();
    for (levels, fits) in [(63, true), (64, false), (900, false)] {
        let tree = nested(levels);
        assert_eq!(decode(&tree.nar(), 4096).is_ok(), fits, "{levels}");
        if levels < 100 {
            let path = dir.path().join(levels.to_string());
            tree.create(&path).unwrap();
            assert_eq!(dumped(&path).is_ok(), fits, "{levels}");
            assert_eq!(Layout::scan(&path).is_ok(), fits, "{levels}");
            if fits {
                let layout = Layout::scan(&path).unwrap();
                assert_eq!(read_all(&layout, 100).unwrap(), tree.nar());
            }
        }
    }
}

#[test]
fn a_tree_that_changes_is_an_error_and_never_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    sample().create(&path).unwrap();
    let nar = sample().nar();
    let layout = Layout::scan(&path).unwrap();
    let check = |kind: io::ErrorKind| {
        layout.release();
        let error = read_all(&layout, 4096).unwrap_err();
        assert_eq!(error.kind(), kind);
    };

    fs::write(path.join("lib/a"), b"123456").unwrap();
    check(io::ErrorKind::InvalidData);
    fs::write(path.join("lib/a"), b"12345678").unwrap();
    check(io::ErrorKind::InvalidData);
    fs::remove_file(path.join("lib/a")).unwrap();
    check(io::ErrorKind::NotFound);
    // A symlink to a file that would fit is not followed.
    fs::write(dir.path().join("outside"), b"1234567").unwrap();
    symlink("../../outside", path.join("lib/a")).unwrap();
    layout.release();
    assert!(read_all(&layout, 4096).is_err());
    fs::remove_file(path.join("lib/a")).unwrap();
    fs::write(path.join("lib/a"), b"1234567").unwrap();
    layout.release();
    assert_eq!(read_all(&layout, 4096).unwrap(), nar);
    // A directory on the way that became a symlink is not followed either.
    fs::rename(path.join("lib"), dir.path().join("lib")).unwrap();
    symlink("../lib", path.join("lib")).unwrap();
    layout.release();
    assert!(read_all(&layout, 4096).is_err());
    fs::remove_file(path.join("lib")).unwrap();
    fs::rename(dir.path().join("lib"), path.join("lib")).unwrap();
    assert_eq!(read_all(&layout, 4096).unwrap(), nar);
    // Deleted and put back: directories that were open meanwhile are looked up again.
    fs::remove_dir_all(&path).unwrap();
    let mut buf = [0; 64];
    assert!(layout.read_at(nar.len() as u64 - 700, &mut buf).is_err());
    sample().create(&path).unwrap();
    assert_eq!(read_all(&layout, 4096).unwrap(), nar);
}

#[test]
fn a_file_cut_short_while_it_is_open_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, vec![1; 100_000]).unwrap();
    let layout = Layout::scan(&path).unwrap();
    let mut buf = vec![0; 1000];
    assert_eq!(layout.read_at(0, &mut buf).unwrap(), 1000);
    fs::write(&path, b"short").unwrap();
    assert_eq!(layout.read_at(1000, &mut buf).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn reading_in_sequence_opens_each_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    sample().create(&path).unwrap();
    let (nar, layout) = (sample().nar(), Layout::scan(&path).unwrap());
    let mut buf = vec![0; 10_000];
    assert_eq!(layout.read_at(0, &mut buf).unwrap(), buf.len());
    // The file goes on being read although nobody could open it any more.
    fs::remove_file(path.join("bin/run")).unwrap();
    for at in (10_000..300_000).step_by(buf.len()) {
        assert_eq!(layout.read_at(at as u64, &mut buf).unwrap(), buf.len());
        assert_eq!(buf, nar[at..at + buf.len()]);
    }
    layout.release();
    let error = layout.read_at(20_000, &mut buf).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn readers_on_many_threads_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    sample().create(&path).unwrap();
    let (nar, layout) = (sample().nar(), Layout::scan(&path).unwrap());
    std::thread::scope(|scope| {
        for piece in [100, 999, 4096, 5000, 100_000, 64, 7777] {
            let (nar, layout) = (&nar, &layout);
            scope.spawn(move || assert!(&read_all(layout, piece).unwrap() == nar));
        }
    });
}

#[test]
fn what_no_nar_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [socket.as_path(), dir.path(), Path::new("/dev/null")] {
        assert_eq!(dumped(path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Layout::scan(path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    let nothing = dir.path().join("nothing");
    assert_eq!(dumped(&nothing).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(Layout::scan(&nothing).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn restoring_never_replaces_or_leaves_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    symlink("outside", dir.path().join("link")).unwrap();
    symlink("gone", dir.path().join("dangling")).unwrap();
    for dest in ["victim", "outside", "link", "dangling"] {
        for tree in [sample(), Tree::file(b"x"), Tree::Link(b"x".to_vec())] {
            let error = nar::restore(&tree.nar()[..], &dir.path().join(dest)).unwrap_err();
            assert!(matches!(error.kind, NarErrorKind::Visitor(_)), "{dest}");
        }
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    assert!(!dir.path().join("gone").exists());

    // A symlink and then a directory of the same name, to write through the one into the other.
    let mut hostile = Vec::new();
    for word in ["nix-archive-1", "(", "type", "directory"] {
        put(&mut hostile, word.as_bytes());
    }
    for node in [Tree::Link(b"../outside".to_vec()), Tree::dir([("x", Tree::file(b"x"))])] {
        for word in ["entry", "(", "name", "a", "node"] {
            put(&mut hostile, word.as_bytes());
        }
        hostile.extend_from_slice(&node.nar()[24..]);
        put(&mut hostile, b")");
    }
    put(&mut hostile, b")");
    let error = nar::restore(&hostile[..], &dir.path().join("new")).unwrap_err();
    assert!(matches!(error.kind, NarErrorKind::Order));
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
}

#[test]
fn claims_of_length_allocate_nothing() {
    for words in [
        &["nix-archive-1", "(", "type", "regular", "contents"][..],
        &["nix-archive-1", "(", "type", "symlink", "target"],
        &["nix-archive-1", "(", "type", "directory", "entry", "(", "name"],
        &["nix-archive-1"],
        &[],
    ] {
        let mut nar = Vec::new();
        words.iter().for_each(|word| put(&mut nar, word.as_bytes()));
        for claim in [u64::MAX, u64::MAX - 7, 1 << 62, 1 << 33] {
            let claimed = [&nar[..], &claim.to_le_bytes(), b"some data"].concat();
            assert!(decode(&claimed, 5).is_err());
        }
    }
}

#[test]
fn a_failed_decoder_stays_failed() {
    let mut decoder = Decoder::new();
    assert!(decoder.push(b"\xff\0\0\0\0\0\0\0", &mut ()).is_err());
    let error = decoder.push(&Tree::file(b"").nar(), &mut ()).unwrap_err();
    assert!(matches!(error.kind, NarErrorKind::Failed));
    assert!(decoder.finish().is_err());
}

#[test]
fn the_listing_tells_where_contents_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    sample().create(&path).unwrap();
    let nar = sample().nar();
    let layout = Layout::scan(&path).unwrap();
    let listing: serde_json::Value =
        serde_json::from_slice(&serde_json::to_vec(&layout.listing()).unwrap()).unwrap();
    let root = &listing["root"];
    assert_eq!(listing["version"], 1);
    assert_eq!(root["type"], "directory");
    let names: Vec<&String> = root["entries"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["bin", "empty", "lib", "lib-link", "zero"]);
    let run = &root["entries"]["bin"]["entries"]["run"];
    assert_eq!((&run["size"], &run["executable"]), (&300_000.into(), &true.into()));
    let b = &root["entries"]["lib"]["entries"]["b"];
    let at = usize::try_from(b["narOffset"].as_u64().unwrap()).unwrap();
    assert_eq!(&nar[at..at + 8], b"12345678");
    assert!(b.get("executable").is_none());
    assert_eq!(root["entries"]["lib-link"]["target"], "lib/../../..");
    assert_eq!(root["entries"]["empty"]["entries"], serde_json::json!({}));
}

#[test]
fn real_nix_dumps_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    sample().create(&path).unwrap();
    let output = match Command::new("nix-store").arg("--dump").arg(&path).output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED: real_nix_dumps_the_same_bytes: nix-store does not start: {error}");
            assert!(std::env::var_os("HAULOUT_NO_SKIPS").is_none_or(|v| v != "1"), "skipped");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dumped(&path).unwrap() == output.stdout);
    let layout = Layout::scan(&path).unwrap();
    assert!(read_all(&layout, 10_000).unwrap() == output.stdout);
}

/// Two threads share the work on a directory of many entries; the bytes are the same.
#[test]
fn many_files_large_ones_among_them_come_out_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: String, tree: Tree| (name.into_bytes(), tree);
    let mut entries: Vec<(Vec<u8>, Tree)> = (0..500)
        .map(|n| named(format!("file-{n:03}"), Tree::file(&vec![n as u8; n * 7 % 6000])))
        .collect();
    // Too much to be made ahead, in a file and in a directory.
    entries.push(named("file-250-large".to_owned(), Tree::file(&vec![1; 5 << 20])));
    let inner = (0..40).map(|n| named(format!("{n}"), Tree::file(&vec![n as u8; 100_000])));
    entries.push(named("sub".to_owned(), Tree::Dir(inner.collect())));
    let flat = (0..30).map(|n| named(format!("{n}"), Tree::Link(b"../target".to_vec())));
    entries.push(named("links".to_owned(), Tree::Dir(flat.collect())));
    for n in 0..20 {
        let files = (0..10).map(|m| named(format!("{m}"), Tree::file(&[n, m])));
        entries.push(named(format!("dir-{n}"), Tree::Dir(files.collect())));
    }
    let tree = Tree::Dir(entries.into_iter().collect());
    let path = dir.path().join("tree");
    tree.create(&path).unwrap();
    let expected = tree.nar();
    for _ in 0..3 {
        assert!(dumped(&path).unwrap() == expected);
    }
    assert!(read_all(&Layout::scan(&path).unwrap(), 1 << 20).unwrap() == expected);

    // A writer that fails ends it, whoever is at work.
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for room in [0, 300_000, 3 << 20] {
        let error = nar::dump(&path, &mut Full(room)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    // So does a file that no NAR holds.
    fs::remove_file(path.join("file-499")).unwrap();
    let _ = std::os::unix::net::UnixListener::bind(path.join("file-499")).unwrap();
    assert!(dumped(&path).is_err());
}
