//! The door for machines without an agent: who gets what, and what may be put there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use common::{Memory, Running, file_nar, key, nar_path, narinfo_path, start};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_gateway::{Cut, Door, GatewayConfig, Logins, Refused, Uploads};
use haulout_nix::{HashPart, PathInfo};

/// Keeps everything but what is called `nar/bad.nar`.
#[derive(Default)]
struct Kept {
    files: Mutex<HashMap<String, Bytes>>,
    narinfos: Mutex<HashMap<HashPart, Bytes>>,
}

impl Uploads for Kept {
    fn narinfo(&self, hash: HashPart) -> BoxFuture<'_, Option<Bytes>> {
        async move { self.narinfos.lock().unwrap().get(&hash).cloned() }.boxed()
    }

    fn size_of<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<u64>> {
        async move { self.files.lock().unwrap().get(name).map(|file| file.len() as u64) }.boxed()
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        from: u64,
    ) -> BoxFuture<'a, Option<BoxStream<'static, Result<Bytes, Cut>>>> {
        async move {
            let file = self.files.lock().unwrap().get(name)?.clone();
            Some(stream::iter([Ok(file.slice(usize::try_from(from).unwrap()..))]).boxed())
        }
        .boxed()
    }

    fn put_file<'a>(
        &'a self,
        name: &'a str,
        mut body: BoxStream<'static, Result<Bytes, Cut>>,
    ) -> BoxFuture<'a, Result<(), Refused>> {
        async move {
            let mut file = BytesMut::new();
            while let Some(piece) = body.next().await {
                file.extend_from_slice(
                    &piece.map_err(|cut| Refused { status: 400, why: cut.reason })?,
                );
            }
            if name == "nar/bad.nar" {
                return Err(Refused { status: 403, why: "it is bad".into() });
            }
            self.files.lock().unwrap().insert(name.to_owned(), file.freeze());
            Ok(())
        }
        .boxed()
    }

    fn put_narinfo(&self, hash: HashPart, text: Bytes) -> BoxFuture<'_, Result<(), Refused>> {
        async move {
            self.narinfos.lock().unwrap().insert(hash, text);
            Ok(())
        }
        .boxed()
    }
}

fn gateway(door: Door) -> (Running, Arc<PathInfo>) {
    let mut memory = Memory::new();
    let path = memory.add("small", file_nar(b"hello"), &[], &key());
    let config = GatewayConfig { door: Some(door), ..GatewayConfig::default() };
    (start(Arc::new(memory), config), path)
}

/// `ci:s3cret`
const WRITER: &str = "Authorization: Basic Y2k6czNjcmV0\r\n";

fn open_door() -> Door {
    Door {
        writers: Logins::parse("ci:s3cret").unwrap(),
        uploads: Some(Arc::new(Kept::default())),
        ..Door::default()
    }
}

#[test]
fn guests_get_paths_and_nothing_about_the_machine() {
    let (gateway, path) = gateway(Door::default());
    assert_eq!(gateway.get("/nix-cache-info").status, 200);
    assert_eq!(gateway.get(&narinfo_path(&path)).status, 200);
    assert_eq!(gateway.get(&nar_path(&path)).status, 200);
    // Even from this machine: a proxy in front is on it.
    for private in ["/", "/api/v1/status", "/api/v1/peers", &format!("/log/{}", path.path)] {
        assert_eq!(gateway.get(private).status, 404, "{private}");
    }
    assert_eq!(
        gateway.connect().ask("PUT", &narinfo_path(&path), "Content-Length: 0\r\n").status,
        405
    );
}

#[test]
fn readers_must_say_who_they_are() {
    let readers = Logins::parse("ci:s3cret").unwrap();
    let (gateway, path) = gateway(Door { readers, ..Door::default() });
    let refused = gateway.get(&narinfo_path(&path));
    assert_eq!(
        (refused.status, refused.header("www-authenticate").split(' ').next()),
        (401, Some("Basic"))
    );
    for good in [WRITER, "Authorization: Bearer s3cret\r\n"] {
        assert_eq!(gateway.connect().ask("GET", &narinfo_path(&path), good).status, 200);
    }
    let wrong = "Authorization: Basic Y2k6d3Jvbmc=\r\n";
    assert_eq!(gateway.connect().ask("GET", &nar_path(&path), wrong).status, 401);
}

#[test]
fn strangers_networks_are_not_let_in() {
    let (gateway, _) =
        gateway(Door { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Door::default() });
    let mut client = gateway.connect();
    let _ = std::io::Write::write_all(&mut client.stream, b"GET /nix-cache-info HTTP/1.1\r\n\r\n");
    assert!(client.is_closed());
}

#[test]
fn uploads_come_back_whole_and_in_part() {
    let (gateway, _) = gateway(open_door());
    let file = format!("/nar/{}.nar.xz", "0".repeat(52));
    let narinfo = format!("/{}.narinfo", "1".repeat(32));
    assert_eq!(gateway.connect().ask("HEAD", &file, "").status, 404);
    for (name, body) in [(file.as_str(), "compressed"), (&narinfo, "text")] {
        let length = format!("Content-Length: {}\r\n", body.len());
        let mut client = gateway.connect();
        client.send(format!("PUT {name} HTTP/1.1\r\nHost: x\r\n{length}\r\n{body}").as_bytes());
        assert_eq!(client.reply(false).unwrap().status, 401, "not without a login");
        let mut client = gateway.connect();
        client.send(
            format!("PUT {name} HTTP/1.1\r\nHost: x\r\n{WRITER}{length}\r\n{body}").as_bytes(),
        );
        assert_eq!(client.reply(false).unwrap().status, 201);
        assert_eq!(gateway.get(name).text(), body);
    }
    let part = gateway.connect().ask("GET", &file, "Range: bytes=2-5\r\n");
    assert_eq!(
        (part.status, part.text(), part.header("content-range")),
        (206, "mpre", "bytes 2-5/10")
    );
    assert_eq!(gateway.connect().ask("HEAD", &file, "").header("content-length"), "10");
}

#[test]
fn refusals_say_why_and_endless_narinfos_end() {
    let (gateway, _) = gateway(open_door());
    let mut client = gateway.connect();
    client.send(
        format!("PUT /nar/bad.nar HTTP/1.1\r\nHost: x\r\n{WRITER}Content-Length: 1\r\n\r\nx")
            .as_bytes(),
    );
    let refused = client.reply(false).unwrap();
    assert_eq!((refused.status, refused.text()), (403, "it is bad\n"));
    let narinfo = format!("/{}.narinfo", "1".repeat(32));
    let mut client = gateway.connect();
    client.send(
        format!("PUT {narinfo} HTTP/1.1\r\nHost: x\r\n{WRITER}Content-Length: 2000000\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(client.reply(false).unwrap().status, 413);
    let mut client = gateway.connect();
    client.send(
        format!("PUT {narinfo} HTTP/1.1\r\nHost: x\r\n{WRITER}Transfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    );
    for _ in 0..40 {
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        if std::io::Write::write_all(&mut client.stream, &chunk).is_err() {
            break;
        }
    }
    assert!(client.reply(false).is_none_or(|reply| reply.status == 413));
}
