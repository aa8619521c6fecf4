//! Upstreams against real servers on loopback.

mod decompression;
mod faults;
mod kinds;
mod proxies;
mod targets;
mod transfers;
mod uploads;

use std::sync::Arc;

use futures_util::StreamExt;

use crate::testing::*;
use crate::{Answer, FileLocation, Trouble, Upstreams, decompress};

/// The whole NAR, through its decompression.
async fn nar(upstreams: &Upstreams, file: &FileLocation, size: u64) -> Result<Vec<u8>, Trouble> {
    let stream = upstreams.open(file, 0, None).await?;
    collect(decompress(&file.compression, size, stream)?).await
}

async fn collect(
    mut stream: impl futures_util::Stream<Item = Result<bytes::Bytes, Trouble>> + Unpin,
) -> Result<Vec<u8>, Trouble> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

#[tokio::test]
async fn many_questions_share_one_http2_connection() {
    let paths: Vec<Path> = (1..=50).map(|n| Path::new(n, 1000)).collect();
    let hashes: Vec<_> = paths.iter().map(Path::hash).collect();
    let server = Server::tls(cache_of(paths)).await;
    let upstreams = with(server.options(), &[&server.url()]);
    let asked = hashes.iter().map(|hash| upstreams.narinfo(*hash, AMPLE));
    for answer in futures_util::future::join_all(asked).await {
        let found = expect_found(answer);
        let size = found.narinfo.info.nar_size;
        assert_eq!(nar(&upstreams, &found.file, size).await.unwrap().len(), 1000);
    }
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1 + 50 + 50);
    assert!(seen.iter().all(|(_, version)| *version == hyper::Version::HTTP_2));
}

#[tokio::test]
async fn answers_are_kept_and_one_question_is_asked_once() {
    let path = Path::new(1, 10);
    let (hash, other) = (path.hash(), Path::new(2, 10).hash());
    let server = Server::plain(cache_of(vec![path])).await;
    let upstreams = upstreams(&[&server.url()]);
    assert!(upstreams.remembered(&hash).is_none());
    let asked = (0..20).map(|_| upstreams.narinfo(hash, AMPLE));
    for answer in futures_util::future::join_all(asked).await {
        expect_found(answer);
    }
    for _ in 0..3 {
        assert!(matches!(upstreams.narinfo(other, AMPLE).await, Answer::Absent));
    }
    assert!(matches!(upstreams.remembered(&other), Some(Answer::Absent)));
    assert_eq!(
        (server.requests_of(&hash.to_string()), server.requests_of(&other.to_string())),
        (1, 1)
    );
    upstreams.forget(&hash);
    expect_found(upstreams.narinfo(hash, AMPLE).await);
    assert_eq!(server.requests_of(&hash.to_string()), 2);
    let status = &upstreams.status()[0];
    assert_eq!((status.priority, status.found, status.absent, status.failed), (40, 2, 1, 0));
}

#[tokio::test]
async fn what_is_not_believed_is_absent() {
    let mut forged = Path::new(1, 10);
    forged.info.nar_size = 11;
    let mut unsigned = Path::new(2, 10);
    unsigned.info.signatures.clear();
    let hashes = [forged.hash(), unsigned.hash()];
    let server = Server::plain(cache_of(vec![forged, unsigned])).await;
    let upstreams = upstreams(&[&server.url()]);
    for hash in hashes {
        assert!(matches!(upstreams.narinfo(hash, AMPLE).await, Answer::Absent));
    }
}

#[tokio::test]
async fn the_next_cache_is_asked_when_one_has_it_not() {
    let (here, there) = (Path::new(1, 10), Path::new(2, 10));
    let hashes = [here.hash(), there.hash()];
    let first = Server::plain(cache_of(vec![here])).await;
    let second = Server::plain(cache_of(vec![there])).await;
    let urls = [format!("{}?priority=10", first.url()), format!("{}?priority=20", second.url())];
    let upstreams = upstreams(&[&urls[1], &urls[0]]);
    let found = expect_found(upstreams.narinfo(hashes[0], AMPLE).await);
    assert_eq!(found.file.upstream.as_str(), first.url());
    let found = expect_found(upstreams.narinfo(hashes[1], AMPLE).await);
    assert_eq!(found.file.upstream.as_str(), second.url());
    assert!(matches!(upstreams.narinfo(Path::new(3, 1).hash(), AMPLE).await, Answer::Absent));
    assert_eq!(upstreams.status()[0].url, first.url());
}

#[tokio::test]
async fn conditional_questions_after_a_while() {
    let path = Path::new(1, 10);
    let (hash, text) = (path.hash(), path.narinfo());
    let counts: Arc<std::sync::Mutex<Vec<bool>>> = Arc::default();
    let conditional = Arc::clone(&counts);
    let server = Server::plain(move |request| {
        if request.uri().path().ends_with(".narinfo") {
            conditional.lock().unwrap().push(request.headers().contains_key("if-none-match"));
            return file(&request, text.clone().into());
        }
        answer(200, "StoreDir: /nix/store\n")
    })
    .await;
    let upstreams = upstreams(&[&server.url()]);
    expect_found(upstreams.narinfo(hash, AMPLE).await);
    upstreams.age_memory(&hash);
    assert!(upstreams.remembered(&hash).is_none());
    expect_found(upstreams.narinfo(hash, AMPLE).await);
    assert_eq!(*counts.lock().unwrap(), [false, true]);
    assert!(matches!(upstreams.remembered(&hash), Some(Answer::Found(_))), "renewed by the 304");
}
