//! What is pushed can be read, and is never seen half.

use std::io;
use std::path::Path as FsPath;

use super::kinds::{credentials, s3_server};
use super::*;
use crate::CacheUrl;
use crate::target::{Packing, Target, TargetError};

async fn push(target: &Target, path: &Path) -> Result<bool, TargetError> {
    let bytes = path.nar.clone();
    let placed = target.put_nar(&path.info, move |out| out.write_all(&bytes)).await?;
    target.put_narinfo(path.info.clone(), &placed).await?;
    Ok(placed.was_there)
}

fn target(url: &str, packing: Packing) -> Target {
    let url: CacheUrl = url.parse().unwrap();
    Target::open_with(&url, haulout_nix::StoreDir::default(), packing, Some(credentials("s3cret")))
        .unwrap()
}

fn files(dir: &FsPath) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn pushed_to_a_directory() {
    for (packing, suffix) in
        [(Packing::None, "nar"), (Packing::Zstd(3), "zst"), (Packing::Xz(1), "xz")]
    {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/new/cache", dir.path().display());
        let (root, path) = (dir.path().join("new/cache"), Path::new(1, 300_000));
        let target = target(&url, packing);
        target.prepare().await.unwrap();
        assert!(!target.has(path.hash()).await.unwrap());
        assert!(!push(&target, &path).await.unwrap());
        assert!(push(&target, &path).await.unwrap(), "the NAR was there");
        assert!(target.has(path.hash()).await.unwrap());
        let names = files(&root);
        assert_eq!(names, [path.file_name().as_str(), "nar", "nix-cache-info"]);
        let nars = files(&root.join("nar"));
        assert!(nars.len() == 1 && nars[0].ends_with(suffix), "{nars:?}");
        let upstreams = upstreams(&[&url]);
        let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
        assert_eq!(nar(&upstreams, &found.file, 300_000).await.unwrap(), path.nar);
    }
}

#[tokio::test]
async fn pushed_to_a_bucket_small_and_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bucket")).unwrap();
    let address = s3_server(dir.path()).await;
    let url = format!("s3://bucket/team?endpoint=http://{address}");
    let target = target(&url, Packing::None);
    target.prepare().await.unwrap();
    let mut options = options();
    options.aws = Some(credentials("s3cret"));
    let upstreams = with(options, &[&url]);
    for path in [Path::new(1, 100_000), Path::new(2, 20 << 20)] {
        assert!(!target.has(path.hash()).await.unwrap());
        assert!(!push(&target, &path).await.unwrap());
        assert!(push(&target, &path).await.unwrap());
        let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
        let got = nar(&upstreams, &found.file, path.info.nar_size).await.unwrap();
        assert!(got == path.nar);
    }
}

#[tokio::test]
async fn what_is_damaged_is_not_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(&format!("file://{}", dir.path().display()), Packing::Zstd(1));
    target.prepare().await.unwrap();
    let path = Path::new(1, 1000);
    let mut other = path.nar.clone();
    other[500] ^= 1;
    let damaged = target.put_nar(&path.info, move |out| out.write_all(&other)).await;
    assert!(matches!(damaged, Err(TargetError::Damaged { .. })));
    let gone = target.put_nar(&path.info, |_| Err(io::ErrorKind::NotFound.into())).await;
    assert!(matches!(gone, Err(TargetError::Read { .. })));
    assert_eq!(files(&dir.path().join("nar")), [""; 0], "nothing is left behind");
}

#[tokio::test]
async fn what_is_no_target() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
    let target = target(&format!("file://{}", dir.path().display()), Packing::None);
    assert!(matches!(target.prepare().await, Err(TargetError::OtherStore(_))));
    let url: CacheUrl = "https://cache.nixos.org".parse().unwrap();
    let http = Target::open(&url, haulout_nix::StoreDir::default(), Packing::None);
    assert!(matches!(http, Err(TargetError::Kind)));
}
