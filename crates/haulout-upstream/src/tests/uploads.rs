//! What is uploaded is taken only if it is what it says.

use std::path::Path as FsPath;

use bytes::Bytes;
use haulout_nix::{Compression, NarHash, PathInfo, StoreDir};

use super::*;
use crate::target::{Receiver, Refusal};

/// A path with a real NAR, signed, compressed with zstd.
struct Upload {
    info: PathInfo,
    file: Vec<u8>,
    name: String,
}

fn upload(n: u8) -> Upload {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, vec![n; 5000]).unwrap();
    let mut nar = Vec::new();
    haulout_nix::nar::dump(&file, &mut nar).unwrap();
    let mut info = Path::new(n, 1).info;
    (info.nar_hash, info.nar_size) = (NarHash::of(&nar), nar.len() as u64);
    info.signatures = vec![info.sign(&StoreDir::default(), &key())];
    let file = zstd::encode_all(&nar[..], 3).unwrap();
    let name = format!("nar/{}.nar.zst", NarHash::of(&file).to_nix32());
    Upload { info, file, name }
}

fn receiver(dir: &FsPath, quota: u64) -> Receiver {
    Receiver::open(dir.to_owned(), StoreDir::default(), quota, Arc::clone(&options().judge))
        .unwrap()
}

fn body(bytes: &[u8]) -> impl futures_util::Stream<Item = Result<Bytes, Refusal>> + Unpin {
    let pieces: Vec<_> =
        bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures_util::stream::iter(pieces)
}

fn narinfo(info: &PathInfo, url: &str) -> String {
    let mut narinfo = haulout_nix::NarInfo::raw(info.clone());
    narinfo.url = url.to_owned();
    narinfo.compression = Compression::Zstd;
    // Nobody vouches for these; they are written anew.
    narinfo.file_size = Some(7);
    narinfo.to_text(&StoreDir::default())
}

#[tokio::test]
async fn good_uploads_are_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(dir.path(), 1 << 20);
    let (a, hash) = (upload(1), Path::new(1, 1).hash());
    assert!(receiver.size_of(&a.name).await.is_none() && receiver.narinfo(hash).await.is_none());
    receiver.put_file(&a.name, body(&a.file)).await.unwrap();
    assert!(receiver.narinfo(hash).await.is_none(), "nothing is visible before its narinfo");
    receiver.put_narinfo(hash, narinfo(&a.info, &a.name).as_bytes()).await.unwrap();
    assert_eq!(receiver.size_of(&a.name).await, Some(a.file.len() as u64));
    let text = String::from_utf8(receiver.narinfo(hash).await.unwrap().to_vec()).unwrap();
    assert!(text.contains(&format!("FileSize: {}\n", a.file.len())), "{text}");

    let upstreams = upstreams(&[&format!("file://{}", dir.path().display())]);
    let found = expect_found(upstreams.narinfo(hash, AMPLE).await);
    assert_eq!(
        nar(&upstreams, &found.file, a.info.nar_size).await.unwrap().len() as u64,
        a.info.nar_size
    );
}

#[tokio::test]
async fn bad_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receiver(dir.path(), 1 << 20);
    let (a, b, hash) = (upload(1), upload(2), Path::new(1, 1).hash());
    for name in ["nar/../x.nar", "x.nar", "nar/x.nar", "../nar", "nix-cache-info", &b.name] {
        let refused = receiver.put_file(name, body(&a.file)).await;
        assert!(matches!(refused, Err(Refusal::Wrong(_))), "{name}: {refused:?}");
    }
    let cut = futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(Refusal::Cut)]);
    assert!(matches!(receiver.put_file(&a.name, cut).await, Err(Refusal::Cut)));
    assert_eq!(std::fs::read_dir(dir.path().join("nar")).unwrap().count(), 0, "nothing is kept");

    let wrong = |text: String| {
        let receiver = receiver.clone();
        async move { receiver.put_narinfo(hash, text.as_bytes()).await }
    };
    let refused = wrong(narinfo(&a.info, &a.name)).await;
    assert!(
        matches!(&refused, Err(Refusal::Wrong(why)) if why.contains("not uploaded")),
        "{refused:?}"
    );
    receiver.put_file(&a.name, body(&a.file)).await.unwrap();
    receiver.put_file(&b.name, body(&b.file)).await.unwrap();
    let mut unsigned = a.info.clone();
    unsigned.signatures.clear();
    assert!(matches!(wrong(narinfo(&unsigned, &a.name)).await, Err(Refusal::NotTrusted(_))));
    for (info, url, why) in [
        (&b.info, a.name.as_str(), "another path"),
        (&a.info, b.name.as_str(), "not the one"),
        (&a.info, "https://evil.example/x.nar", "leads out"),
        (&a.info, "../secret", "leads out"),
        (&a.info, "nix-cache-info", "not that of a NAR file"),
    ] {
        let refused = wrong(narinfo(info, url)).await;
        assert!(
            matches!(&refused, Err(Refusal::Wrong(said)) if said.contains(why)),
            "{url}: {refused:?}"
        );
    }
    assert!(receiver.narinfo(hash).await.is_none());
}

#[tokio::test]
async fn there_is_a_quota_and_it_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (upload(1), upload(2));
    let quota = a.file.len() as u64 + 10;
    let first = receiver(dir.path(), quota);
    first.put_file(&a.name, body(&a.file)).await.unwrap();
    assert!(matches!(first.put_file(&b.name, body(&b.file)).await, Err(Refusal::Full(_))));
    assert!(matches!(
        receiver(dir.path(), quota).put_file(&b.name, body(&b.file)).await,
        Err(Refusal::Full(_))
    ));
}
