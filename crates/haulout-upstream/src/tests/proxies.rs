//! Caches behind a proxy: a real one on loopback, which leads every name to one server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::nar;
use crate::http::Proxies;
use crate::testing::*;
use crate::{Answer, Options};

/// What it was asked: the first line and the login of each connection.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A proxy that wants a login and knows one server.
async fn proxy(server: SocketAddr) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.ok()?);
                }
                let text = String::from_utf8(head.clone()).ok()?;
                let field = |line: &str| {
                    let (name, value) = line.split_once(':')?;
                    let ours = name.eq_ignore_ascii_case("proxy-authorization");
                    ours.then(|| value.trim().to_owned())
                };
                let login = text.lines().find_map(field);
                let first = text.lines().next()?.to_owned();
                noted.lock().unwrap().push((first.clone(), login.clone()));
                if login.as_deref() != Some("Basic bWU6c2VjcmV0") {
                    let _ = near.write_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n").await;
                    return None;
                }
                let mut far = TcpStream::connect(server).await.ok()?;
                if first.starts_with("CONNECT ") {
                    near.write_all(b"HTTP/1.1 200 Go on\r\n\r\n").await.ok()?;
                } else {
                    far.write_all(&head).await.ok()?;
                }
                copy_bidirectional(&mut near, &mut far).await.ok()
            });
        }
    });
    (address, asked)
}

fn through(options: Options, proxy: &str, except: &str) -> Options {
    Options { proxies: Some(Proxies::all(proxy, except)), ..options }
}

#[tokio::test]
async fn https_goes_through_a_tunnel_and_http_is_handed_over() {
    for tls in [true, false] {
        let path = Path::new(1, 100_000);
        let (hash, expected) = (path.hash(), path.nar.clone());
        let server = match tls {
            true => Server::tls(cache_of(vec![path])).await,
            false => Server::plain(cache_of(vec![path])).await,
        };
        let (address, asked) = proxy(server.address).await;
        let options = through(server.options(), &format!("http://me:secret@{address}"), "");
        let url = if tls { "https://cache.test" } else { "http://cache.test" };
        let upstreams = with(options, &[url]);
        let found = expect_found(upstreams.narinfo(hash, AMPLE).await);
        assert_eq!(nar(&upstreams, &found.file, 100_000).await.unwrap(), expected);
        let asked = asked.lock().unwrap().clone();
        let wanted = match tls {
            true => "CONNECT cache.test:443 HTTP/1.1",
            false => "GET http://cache.test/nix-cache-info HTTP/1.1",
        };
        assert_eq!(asked[0].0, wanted);
        assert!(asked.iter().all(|(_, login)| login.is_some()));
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_trouble_and_not_gone_around() {
    let server = Server::plain(cache_of(vec![Path::new(1, 10)])).await;
    let (address, asked) = proxy(server.address).await;
    for proxy in [
        format!("http://{address}"),
        format!("http://me:wrong@{address}"),
        "socks5://127.0.0.1:9".to_owned(),
    ] {
        for url in ["https://cache.test", "http://cache.test"] {
            let upstreams = with(through(server.options(), &proxy, ""), &[url]);
            let answer = upstreams.narinfo(Path::new(1, 10).hash(), AMPLE).await;
            assert!(matches!(answer, Answer::Unknown(_)), "{proxy} {url}: {answer:?}");
        }
    }
    assert_eq!(asked.lock().unwrap().len(), 4);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn this_machine_and_caches_of_the_network_are_asked_directly() {
    let path = Path::new(1, 10);
    let hash = path.hash();
    let server = Server::plain(cache_of(vec![path])).await;
    let (address, asked) = proxy(server.address).await;
    let options = through(options(), &format!("http://{address}"), "");
    expect_found(with(options.clone(), &[&server.url()]).narinfo(hash, AMPLE).await);
    let upstreams = crate::Upstreams::new(options);
    upstreams.add_neighbour(&server.url().parse().unwrap()).unwrap();
    upstreams.warm();
    assert!(asked.lock().unwrap().is_empty());
}
