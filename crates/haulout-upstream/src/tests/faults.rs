//! Upstreams as they are met on bad days, and one that means harm.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const BUDGET: Duration = Duration::from_millis(200);

/// A server that does this to every connection after the first bytes came.
async fn raw<F, W>(work: W) -> (SocketAddr, Arc<AtomicUsize>)
where
    W: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.fetch_add(1, SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            tokio::spawn(work(stream));
        }
    });
    (address, count)
}

/// Asks for so many paths, one after the other as `nix copy` does. Every answer must be "unknown"
/// within the budget (with room for a busy machine); gives the last trouble and the whole time.
async fn ask_in_turn(upstreams: &Upstreams, paths: u8) -> (Trouble, Duration) {
    let began = Instant::now();
    let mut last = Trouble::Busy;
    for n in 0..paths {
        match upstreams.narinfo(Path::new(n, 1).hash(), BUDGET).await {
            Answer::Unknown(trouble) => last = trouble,
            other => panic!("{other:?}"),
        }
    }
    (last, began.elapsed())
}

/// After a few failures the upstream is left alone: the other questions cost nothing.
async fn is_soon_left_alone(url: &str, requests: impl Fn() -> usize) {
    let upstreams = upstreams(&[url]);
    let (last, took) = ask_in_turn(&upstreams, 12).await;
    eprintln!("{url}: 12 misses in turn took {took:.1?}, budget {BUDGET:?} each");
    assert!(matches!(last, Trouble::LeftAlone { .. }), "{url}: {last}");
    assert!(upstreams.status()[0].left_alone.is_some());
    // The breaker lets nothing through for a second, then single probes. On a machine so busy
    // that this loop takes seconds there are some more.
    assert!(requests() <= 8, "{url}: {} requests for 12 questions", requests());
}

#[tokio::test]
async fn nobody_listens() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    is_soon_left_alone(&url, || 0).await;
}

#[tokio::test]
async fn it_accepts_and_says_nothing() {
    let (address, count) = raw(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    is_soon_left_alone(&format!("http://{address}"), || count.load(SeqCst)).await;
}

#[tokio::test]
async fn its_header_drips() {
    let (address, count) = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    is_soon_left_alone(&format!("http://{address}"), || count.load(SeqCst)).await;
}

#[tokio::test]
async fn its_header_never_ends() {
    let (address, count) = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        let flood = b"x-flood: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"
            .repeat(100);
        while stream.write_all(&flood).await.is_ok() {}
    })
    .await;
    is_soon_left_alone(&format!("http://{address}"), || count.load(SeqCst)).await;
}

#[tokio::test]
async fn it_speaks_something_else() {
    let (address, count) = raw(|mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    })
    .await;
    is_soon_left_alone(&format!("http://{address}"), || count.load(SeqCst)).await;
}

#[tokio::test]
async fn it_has_trouble_of_its_own() {
    for status in [500, 502, 400, 418] {
        let server = Server::plain(move |_| answer(status, "<h1>oops</h1>")).await;
        is_soon_left_alone(&server.url(), || server.requests()).await;
    }
}

#[tokio::test]
async fn a_login_page_stands_in_its_place() {
    let page = || {
        let page = "<html>Welcome to the hotel</html>";
        Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .body(body(page))
            .unwrap()
    };
    let redirect = || {
        let there = "http://login.hotel.example/?for=cache";
        Response::builder().status(302).header("location", there).body(body("")).unwrap()
    };
    for portal in [page as fn() -> _, redirect, || answer(511, "")] {
        let server = Server::plain(move |_| portal()).await;
        let upstreams = upstreams(&[&server.url()]);
        let answer = upstreams.narinfo(Path::new(1, 1).hash(), AMPLE).await;
        assert!(matches!(answer, Answer::Unknown(Trouble::Portal(_))), "{answer:?}");
        ask_in_turn(&upstreams, 10).await;
        assert_eq!(server.requests(), 1, "one look at a login page is enough");
    }
}

#[tokio::test]
async fn it_limits_the_rate() {
    let limited = |status| {
        move || {
            Response::builder().status(status).header("retry-after", "77").body(body("")).unwrap()
        }
    };
    for status in [429, 503] {
        let answer = limited(status);
        let server = Server::plain(move |request| match request.uri().path() {
            "/nix-cache-info" => crate::testing::answer(200, ""),
            _ => answer(),
        })
        .await;
        let upstreams = upstreams(&[&server.url()]);
        ask_in_turn(&upstreams, 10).await;
        assert_eq!(server.requests(), 2);
        let wait = upstreams.status()[0].left_alone.unwrap();
        assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(77), "{wait:?}");
    }
}

#[tokio::test]
async fn a_narinfo_without_end_or_sense() {
    let endless = || {
        let pieces = futures_util::stream::repeat_with(|| {
            Ok(Frame::data("X: yyyyyyyyyyyyyyyy\n".repeat(500).into()))
        });
        Response::new(StreamBody::new(pieces).boxed_unsync())
    };
    let zeros = || {
        let bomb = zstd::encode_all(&vec![b'\n'; 32 << 20][..], 1).unwrap();
        Response::builder().header("content-encoding", "zstd").body(body(bomb)).unwrap()
    };
    let other: fn() -> Response<Body> = || answer(200, Path::new(200, 5).narinfo());
    let absolute = || {
        answer(
            200,
            Path::new(0, 5)
                .narinfo_at("http://169.254.169.254/latest", haulout_nix::Compression::None),
        )
    };
    let answers = [
        endless as fn() -> _,
        zeros,
        other,
        absolute,
        || answer(200, "no narinfo"),
        || answer(200, ""),
        || answer(206, "x"),
        || answer(304, ""),
    ];
    for (index, narinfo) in answers.into_iter().enumerate() {
        let server = Server::plain(move |request| match request.uri().path() {
            "/nix-cache-info" => answer(200, ""),
            _ => narinfo(),
        })
        .await;
        let upstreams = upstreams(&[&server.url()]);
        let answer = upstreams.narinfo(Path::new(0, 1).hash(), AMPLE).await;
        let fits = matches!(
            answer,
            Answer::Unknown(Trouble::Malformed(_) | Trouble::TooLong(_) | Trouble::Status(_))
        );
        assert!(fits, "{index}: {answer:?}");
    }
}

#[tokio::test]
async fn a_bad_one_does_not_hide_a_good_one() {
    let path = Path::new(1, 1000);
    let hash = path.hash();
    let good = Server::plain(cache_of(vec![path])).await;
    let (silent, _) = raw(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let broken = Server::plain(|_| answer(500, "")).await;
    let urls = [
        format!("http://{silent}?priority=1"),
        format!("{}?priority=2", broken.url()),
        format!("{}?priority=3", good.url()),
    ];
    let upstreams = upstreams(&[&urls[0], &urls[1], &urls[2]]);
    expect_found(upstreams.narinfo(hash, AMPLE).await);
    // Absence is not claimed on behalf of those who said nothing.
    let answer = upstreams.narinfo(Path::new(2, 1).hash(), BUDGET).await;
    assert!(matches!(answer, Answer::Unknown(_)), "{answer:?}");
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_used_again() {
    let path = Path::new(1, 10);
    let hash = path.hash();
    let (well, cache) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), cache_of(vec![path]));
    let state = Arc::clone(&well);
    let server = Server::plain(
        move |request| if state.load(SeqCst) { cache(request) } else { answer(500, "") },
    )
    .await;
    let upstreams = upstreams(&[&server.url()]);
    ask_in_turn(&upstreams, 4).await;
    well.store(true, SeqCst);
    let deadline = Instant::now() + AMPLE;
    loop {
        match upstreams.narinfo(hash, AMPLE).await {
            Answer::Found(_) => break,
            _ => assert!(Instant::now() < deadline),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
