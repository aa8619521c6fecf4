//! Cuts, parts, files that change.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response, body::Incoming};

use super::*;

/// Sends a static file, but lets go of the connection after `cut` bytes of each answer.
fn cut_file(request: &Request<Incoming>, bytes: &[u8], cut: usize) -> Response<Body> {
    let whole = file(request, bytes::Bytes::copy_from_slice(bytes));
    let (mut parts, body) = whole.into_parts();
    let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    parts.headers.insert("content-length", body.len().into());
    let end = cut.min(body.len());
    let mut pieces = vec![Ok(Frame::data(body.slice(..end)))];
    if end < body.len() {
        pieces.push(Err(std::io::Error::other("cut")));
    }
    // What was sent before the cut must have left the server's buffers.
    let pieces = futures_util::stream::iter(pieces).then(|piece| async {
        if piece.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        piece
    });
    Response::from_parts(parts, StreamBody::new(pieces).boxed_unsync())
}

async fn cutting_server(path: &Path, cut: usize) -> Server {
    let cache = cache_of(vec![Path { nar: path.nar.clone(), info: path.info.clone() }]);
    let bytes = path.nar.clone();
    Server::plain(move |request| match request.uri().path().starts_with("/nar/") {
        true => cut_file(&request, &bytes, cut),
        false => cache(request),
    })
    .await
}

#[tokio::test]
async fn a_cut_transfer_is_taken_up_where_it_broke() {
    let path = Path::new(1, 1_000_000);
    let server = cutting_server(&path, 300_000).await;
    let upstreams = upstreams(&[&server.url()]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    assert_eq!(nar(&upstreams, &found.file, 1_000_000).await.unwrap(), path.nar);
    assert_eq!(server.requests_of("/nar/"), 4);
    let bytes = upstreams.status()[0].bytes;
    assert!(bytes < 1_010_000, "nothing is sent twice: {bytes}");
}

#[tokio::test]
async fn a_transfer_that_breaks_without_progress_ends() {
    let path = Path::new(1, 1000);
    let server = cutting_server(&path, 0).await;
    let upstreams = upstreams(&[&server.url()]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    let ended = nar(&upstreams, &found.file, 1000).await.unwrap_err();
    assert!(matches!(ended, Trouble::Broken(_) | Trouble::LeftAlone { .. }), "{ended}");
    assert!(server.requests_of("/nar/") <= 5);
}

#[tokio::test]
async fn a_file_that_changes_is_not_joined() {
    let path = Path::new(1, 500_000);
    let count = AtomicUsize::new(0);
    let cache = cache_of(vec![Path { nar: path.nar.clone(), info: path.info.clone() }]);
    let server = Server::plain(move |request| {
        if !request.uri().path().starts_with("/nar/") {
            return cache(request);
        }
        let version = count.fetch_add(1, SeqCst) as u8;
        cut_file(&request, &vec![version; 500_000], 200_000)
    })
    .await;
    let upstreams = upstreams(&[&server.url()]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    assert_eq!(nar(&upstreams, &found.file, 500_000).await.unwrap_err(), Trouble::Changed);
}

#[tokio::test]
async fn parts_make_up_the_file_with_and_without_ranges() {
    let path = Path::new(1, 100_000);
    let bytes = path.nar.clone();
    for ranges in [true, false] {
        let cache = cache_of(vec![Path { nar: path.nar.clone(), info: path.info.clone() }]);
        let bytes = bytes.clone();
        let server = Server::plain(move |request| {
            match ranges || !request.uri().path().starts_with("/nar/") {
                true => cache(request),
                false => answer(200, bytes.clone()),
            }
        })
        .await;
        let upstreams = upstreams(&[&server.url()]);
        let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
        let mut all = Vec::new();
        for from in (0..100_000).step_by(30_000) {
            let part = upstreams.open(&found.file, from, Some(30_000)).await.unwrap();
            assert_eq!(
                (part.total, part.ranges || from == 0),
                (Some(100_000), ranges || from == 0)
            );
            all.extend(collect(part).await.unwrap());
        }
        assert_eq!(all, path.nar);
    }
}

#[tokio::test]
async fn more_bytes_than_there_can_be_are_refused() {
    let path = Path::new(1, 1000);
    let cache = cache_of(vec![Path { nar: path.nar.clone(), info: path.info.clone() }]);
    let server = Server::plain(move |request| match request.uri().path().starts_with("/nar/") {
        false => cache(request),
        true => {
            let endless =
                futures_util::stream::repeat_with(|| Ok(Frame::data(vec![7; 1000].into())));
            Response::new(StreamBody::new(endless).boxed_unsync())
        }
    })
    .await;
    let upstreams = upstreams(&[&server.url()]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    assert_eq!(nar(&upstreams, &found.file, 1000).await.unwrap_err(), Trouble::TooLong(1000));
    let raw = upstreams.open(&found.file, 0, None).await.unwrap();
    assert!(matches!(collect(raw).await, Err(Trouble::TooLong(_))));
}

#[tokio::test]
async fn a_file_that_is_gone_is_said_so() {
    let path = Path::new(1, 1000);
    let text = path.narinfo();
    let name = format!("/{}", path.file_name());
    let server = Server::plain(move |request| match request.uri().path() {
        p if p == name => answer(200, text.clone()),
        "/nix-cache-info" => answer(200, ""),
        _ => answer(404, ""),
    })
    .await;
    let upstreams = upstreams(&[&server.url()]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    assert_eq!(upstreams.open(&found.file, 0, None).await.unwrap_err(), Trouble::Status(404));
}
