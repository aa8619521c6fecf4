//! The gateway over real sockets: what it says, byte by byte, to good and bad clients.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Fault, Memory, Running, file_nar, key, nar_path, narinfo_path, noise, start};
use haulout_gateway::{GatewayConfig, LateSubstituter, api};
use haulout_nix::{NarInfo, PathInfo, StoreDir};

/// A gateway with one small and one large path.
fn two_paths() -> (Running, Arc<Memory>, Arc<PathInfo>, Arc<PathInfo>) {
    let mut memory = Memory::new();
    let small = memory.add("small", file_nar(b"hello"), &[], &key());
    let large = memory.add("large", noise(3_000_000, 5), &[&small], &key());
    let memory = Arc::new(memory);
    (start(Arc::clone(&memory), GatewayConfig::default()), memory, small, large)
}

fn counters(gateway: &Running) -> api::HttpCounters {
    serde_json::from_slice::<api::AgentStatus>(&gateway.get("/api/v1/status").body)
        .unwrap()
        .counters
        .http
}

#[test]
fn cache_info_and_narinfo_are_what_nix_expects() {
    let (gateway, _, small, large) = two_paths();
    let info = gateway.get("/nix-cache-info");
    assert_eq!((info.status, info.header("content-type")), (200, "text/x-nix-cache-info"));
    assert_eq!(
        info.text(),
        "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\nHauloutAgent: 1\n"
    );

    for info in [&small, &large] {
        let reply = gateway.get(&narinfo_path(info));
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/x-nix-narinfo"));
        assert!(
            reply.text().contains("\nCompression: none\n")
                && reply.text().contains("\nReferences: ")
        );
        let parsed = NarInfo::parse(&reply.body, &StoreDir::default()).unwrap();
        assert_eq!(&parsed.info, info.as_ref());
        assert_eq!(format!("/{}", parsed.url), nar_path(info));

        let head = gateway.connect().ask("HEAD", &narinfo_path(info), "");
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), reply.body.len().to_string());
    }
}

#[test]
fn nars_whole_and_in_part() {
    let (gateway, _, small, large) = two_paths();
    let mut client = gateway.connect();
    for info in [&small, &large] {
        let path = nar_path(info);
        let all = client.ask("GET", &path, "");
        assert_eq!((all.status, all.header("accept-ranges"), all.complete), (200, "bytes", true));
        assert_eq!(haulout_nix::NarHash::of(&all.body), info.nar_hash);
        let size = all.body.len();
        let head = client.ask("HEAD", &path, "");
        assert_eq!((head.status, head.header("content-length")), (200, &*size.to_string()));

        for (range, from, end) in [
            ("0-".to_owned(), 0, size),
            ("17-".to_owned(), 17, size),
            (format!("{}-", size - 1), size - 1, size),
            ("3-90".to_owned(), 3, 91),
            ("3-99999999999".to_owned(), 3, size),
            ("-20".to_owned(), size - 20, size),
        ] {
            let part = client.ask("GET", &path, &format!("Range: bytes={range}\r\n"));
            assert_eq!((part.status, part.complete), (206, true), "{range}");
            assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{size}", end - 1));
            assert!(part.body == all.body[from..end], "{range}");
        }
        for nonsense in [format!("{size}-"), "99999999999999999999999-".to_owned(), "-0".to_owned()]
        {
            let part = client.ask("GET", &path, &format!("Range: bytes={nonsense}\r\n"));
            assert_eq!(
                (part.status, part.header("content-range")),
                (416, &*format!("bytes */{size}")),
                "{nonsense}"
            );
        }
        for ignored in [
            "Range: bytes=5-1\r\n",
            "Range: lines=1-\r\n",
            "Range: bytes=0-1,3-4\r\n",
            "Range: bytes=1-\r\nIf-Range: \"x\"\r\n",
        ] {
            let whole = client.ask("GET", &path, ignored);
            assert_eq!((whole.status, whole.body.len()), (200, size), "{ignored}");
        }
    }
}

#[test]
fn every_no_is_404() {
    let (gateway, memory, small, large) = two_paths();
    memory.break_path(&large, Fault::NoNar);
    let wrong_hash =
        nar_path(&small).replace(&small.nar_hash.to_nix32(), &large.nar_hash.to_nix32());
    let mut client = gateway.connect();
    for path in [
        "/00000000000000000000000000000000.narinfo",
        "/x.narinfo",
        "/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee.narinfo",
        "/nar/x.nar",
        &wrong_hash,
        &nar_path(&large),
        "/log/nothing",
        "/00000000000000000000000000000000.ls",
        "/realisations/sha256:00!out.doi",
        "/build-trace-v2/x.drv/out.doi",
        "/debuginfo/00",
        "/favicon.ico",
        "/..",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//nix-cache-info",
        "/nar/../nix-cache-info",
        "/nix-cache-info%00",
        "/a?b=c",
    ] {
        for method in ["GET", "HEAD"] {
            if method == "HEAD" && path == nar_path(&large) {
                continue;
            }
            assert_eq!(client.ask(method, path, "").status, 404, "{method} {path}");
        }
    }
    assert_eq!(
        client.ask("GET", "/nix-cache-info", "").status,
        200,
        "the connection is still good"
    );
}

#[test]
fn listing_and_log() {
    let (gateway, _, small, _) = two_paths();
    let listing = gateway.get(&format!("/{}.ls", small.path.hash_part()));
    assert_eq!((listing.status, listing.header("content-type")), (200, "application/json"));
    let log = gateway.get(&format!("/log/{}", small.path));
    assert_eq!(
        (log.status, log.header("content-type"), log.text()),
        (200, "text/plain; charset=utf-8", "built\n")
    );
    let mut client = gateway.connect();
    client
        .send(format!("GET /log/{} HTTP/1.1\r\nHost: evil.example\r\n\r\n", small.path).as_bytes());
    assert_eq!(
        client.reply(false).unwrap().status,
        404,
        "not for a page that poses as this machine"
    );
}

#[test]
fn nothing_can_be_put() {
    let (gateway, _, small, _) = two_paths();
    for (method, path) in [
        ("PUT", "/nix-cache-info"),
        ("PUT", &*narinfo_path(&small)),
        ("POST", "/api/v1/status"),
        ("DELETE", "/x"),
        ("OPTIONS", "*"),
    ] {
        let mut client = gateway.connect();
        client.send(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
            )
            .as_bytes(),
        );
        assert_eq!(client.reply(false).unwrap().status, 405, "{method} {path}");
    }
    let mut client = gateway.connect();
    client.send(b"PUT /nar/x.nar.xz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.reply(false).unwrap().status, 405, "and no 100 before it");
}

#[test]
fn a_body_that_fails_is_never_short_and_complete() {
    let (gateway, memory, _, large) = two_paths();
    let path = nar_path(&large);
    for fault in [
        Fault::CutAfter(1_000_000),
        Fault::PanicAfter(1_000_000),
        Fault::EndAfter(1_000_000),
        Fault::EndAfter(2_999_999),
    ] {
        memory.break_path(&large, fault);
        let mut client = gateway.connect();
        let reply = client.ask("GET", &path, "");
        assert_eq!((reply.status, reply.header("content-length")), (200, "3000000"));
        assert!(!reply.complete && reply.body.len() <= 2_999_999, "{fault:?}");
        assert!(client.is_closed(), "{fault:?}");
    }
    let counted = counters(&gateway);
    assert_eq!((counted.panics, counted.nar_cut, counted.nar_complete), (1, 4, 0));
}

#[test]
fn failing_before_the_first_byte_is_404() {
    let (gateway, memory, _, large) = two_paths();
    let mut client = gateway.connect();
    for fault in [
        Fault::CutAfter(0),
        Fault::PanicAfter(0),
        Fault::EndAfter(0),
        Fault::PanicInNar,
        Fault::NoNar,
    ] {
        memory.break_path(&large, fault);
        assert_eq!(client.ask("GET", &nar_path(&large), "").status, 404, "{fault:?}");
    }
    memory.break_path(&large, Fault::PanicInInfo);
    assert_eq!(client.ask("GET", &narinfo_path(&large), "").status, 404);
    assert_eq!(
        client.ask("GET", "/nix-cache-info", "").status,
        200,
        "the connection is still good"
    );
    assert_eq!(counters(&gateway).panics, 3);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (gateway, _, small, large) = two_paths();
    let mut client = gateway.connect();
    let mut batch = String::new();
    for i in 0..100 {
        let path = if i % 2 == 0 {
            narinfo_path(&small)
        } else {
            format!("/{i:032}.narinfo").replace('e', "a")
        };
        batch += &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    batch += &format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", nar_path(&large));
    client.send(batch.as_bytes());
    for i in 0..100 {
        assert_eq!(client.reply(false).unwrap().status, if i % 2 == 0 { 200 } else { 404 });
    }
    assert_eq!(client.reply(false).unwrap().body.len(), 3_000_000);
}

#[test]
fn other_spellings_of_a_request() {
    let (gateway, _, small, _) = two_paths();
    let path = narinfo_path(&small);
    for (request, status) in [
        (format!("GET http://127.0.0.1:5299{path} HTTP/1.1\r\nHost: x\r\n\r\n"), 200),
        (format!("GET http://evil.example{path}?a=b HTTP/1.1\r\nHost: x\r\n\r\n"), 200),
        (format!("GET {path} HTTP/1.0\r\n\r\n"), 200),
        (format!("GET {path}?x=y HTTP/1.1\r\nhost: x\r\nAccept-Encoding: zstd, br\r\n\r\n"), 200),
        (format!("\r\nGET {path} HTTP/1.1\r\n\r\n"), 200),
    ] {
        let mut client = gateway.connect();
        client.send(request.as_bytes());
        let reply = client.reply(false).unwrap();
        assert_eq!(reply.status, status, "{request}");
        assert_eq!(reply.header("content-encoding"), "");
    }
}

#[test]
fn rubbish_is_refused_and_hurts_nobody() {
    let (gateway, _, small, _) = two_paths();
    let mut good = gateway.connect();
    let huge_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let huge_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let tls = "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}";
    for rubbish in [
        &*huge_header,
        &many_headers,
        &huge_target,
        tls,
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzzz",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
    ] {
        let mut client = gateway.connect();
        // The server may answer and close before it has read everything.
        let _ = std::io::Write::write_all(&mut client.stream, rubbish.as_bytes());
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        if let Some(reply) = client.reply(false) {
            assert!((400..500).contains(&reply.status), "{:.40}: {}", rubbish, reply.status);
        }
        assert_eq!(good.ask("GET", &narinfo_path(&small), "").status, 200);
    }
}

#[test]
fn slow_headers_and_idle_connections_end() {
    let (mut memory, config) = (
        Memory::new(),
        GatewayConfig {
            header_time: Duration::from_millis(200),
            idle_time: Duration::from_millis(900),
            ..Default::default()
        },
    );
    let small = memory.add("small", file_nar(b"x"), &[], &key());
    let gateway = start(Arc::new(memory), config);
    let begun = Instant::now();
    let (mut slow, mut idle, mut silent) =
        (gateway.connect(), gateway.connect(), gateway.connect());
    assert_eq!(idle.ask("GET", &narinfo_path(&small), "").status, 200);
    slow.send(b"GET / HTTP/1.1\r\nHost: loc");
    assert!(slow.is_closed());
    let slow_gone = begun.elapsed();
    assert!(
        slow_gone >= Duration::from_millis(200) && slow_gone < Duration::from_millis(900),
        "{slow_gone:?}"
    );
    assert!(idle.is_closed() && silent.is_closed());
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[test]
fn at_the_limit_the_idle_make_room() {
    let mut memory = Memory::new();
    let small = memory.add("small", file_nar(b"x"), &[], &key());
    let gateway =
        start(Arc::new(memory), GatewayConfig { connections_max: 3, ..Default::default() });
    let mut held: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask("GET", "/nix-cache-info", "").status, 200);
    }
    for _ in 0..10 {
        assert_eq!(gateway.get(&narinfo_path(&small)).status, 200);
    }
}

#[test]
fn a_client_that_leaves_ends_the_transfer() {
    let (gateway, memory, small, large) = two_paths();
    memory.break_path(&small, Fault::Hang);
    let mut client = gateway.connect();
    client.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", narinfo_path(&small)).as_bytes());
    let mut other = gateway.connect();
    other.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", nar_path(&large)).as_bytes());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(counters(&gateway).connections, 3);
    drop((client, other));
    let begun = Instant::now();
    while counters(&gateway).connections > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_control_interface_knows_its_names() {
    let (gateway, _, small, _) = two_paths();
    for (host, ok) in [
        ("localhost", true),
        ("127.0.0.1:5299", true),
        ("[::1]:1", true),
        ("evil.example", false),
        ("", false),
    ] {
        for path in ["/", "/api/v1/status", "/api/v1/peers", &format!("/api/v1/why/{}", small.path)]
        {
            let mut client = gateway.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            assert_eq!(
                client.reply(false).unwrap().status,
                if ok { 200 } else { 403 },
                "{host} {path}"
            );
        }
        let mut client = gateway.connect();
        client.send(
            format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", narinfo_path(&small)).as_bytes(),
        );
        assert_eq!(client.reply(false).unwrap().status, 200, "Nix may use any name: {host}");
    }
    let mut client = gateway.connect();
    client.send(b"GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.reply(false).unwrap().status, 403);
    assert_eq!(gateway.get("/api/v1/why/what").status, 400);
    assert_eq!(gateway.get("/api/v1/nothing").status, 404);
}

#[test]
fn status_counts_what_happened() {
    let (gateway, _, small, large) = two_paths();
    gateway.get(&narinfo_path(&small));
    gateway.get("/00000000000000000000000000000000.narinfo");
    gateway.get(&nar_path(&large));
    let reply = gateway.get("/api/v1/status");
    assert_eq!(
        (reply.header("content-type"), reply.header("cache-control")),
        ("application/json", "no-store")
    );
    let status: api::AgentStatus = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((status.state, status.http_listen), (api::AgentState::Serving, vec![gateway.addr]));
    let http = status.counters.http;
    assert_eq!((http.narinfo_asked, http.narinfo_hit, http.narinfo_miss), (2, 1, 1));
    assert_eq!(
        (http.nar_asked, http.nar_complete, http.bytes_to_nix, http.panics),
        (1, 1, 3_000_000, 0)
    );
}

#[test]
fn before_the_rest_is_ready_the_answer_is_a_quick_no() {
    let mut memory = Memory::new();
    let small = memory.add("small", file_nar(b"x"), &[], &key());
    let late = Arc::new(LateSubstituter::new(StoreDir::default()));
    let gateway = start(Arc::clone(&late), GatewayConfig::default());
    let mut client = gateway.connect();
    assert_eq!(client.ask("GET", "/nix-cache-info", "").status, 200);
    assert_eq!(client.ask("GET", &narinfo_path(&small), "").status, 404);
    assert_eq!(client.ask("GET", &nar_path(&small), "").status, 404);
    let status: api::AgentStatus =
        serde_json::from_slice(&client.ask("GET", "/api/v1/status", "").body).unwrap();
    assert_eq!(status.state, api::AgentState::Starting);
    assert!(late.set(Arc::new(memory)));
    assert_eq!(client.ask("GET", &narinfo_path(&small), "").status, 200);
    assert_eq!(client.ask("GET", &nar_path(&small), "").status, 200);
}

#[test]
fn shutdown_lets_transfers_finish_and_does_not_wait_for_ever() {
    let (mut gateway, memory, small, large) = two_paths();
    let mut client = gateway.connect();
    client.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", nar_path(&large)).as_bytes());
    let mut idle = gateway.connect();
    assert_eq!(idle.ask("GET", "/nix-cache-info", "").status, 200);
    let reader = std::thread::spawn(move || client.reply(false).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    gateway.stop();
    assert!(reader.join().unwrap().complete);
    assert!(idle.is_closed());
    assert!(TcpStream::connect(gateway.addr).is_err());

    memory.break_path(&small, Fault::Hang);
    let mut gateway = start(
        memory,
        GatewayConfig { drain_time: Duration::from_millis(100), ..Default::default() },
    );
    gateway
        .connect()
        .send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", narinfo_path(&small)).as_bytes());
    let mut hung = gateway.connect();
    hung.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", narinfo_path(&small)).as_bytes());
    std::thread::sleep(Duration::from_millis(20));
    let begun = Instant::now();
    gateway.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_page_and_metrics_are_for_this_machine_under_its_own_names() {
    let (gateway, ..) = two_paths();
    for path in ["/", "/page.css", "/page.js", "/metrics", "/api/v1/events"] {
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n").as_bytes());
        assert_eq!(client.reply(false).unwrap().status, 403, "{path}");
    }
    let page = gateway.get("/");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'; script-src 'self';")
    );
    assert!(page.text().contains("<section id=\"peers\""));
    let metrics = gateway.get("/metrics");
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text().contains("\nhaulout_narinfo_total{answer=\"hit\"} 0\n"));
}
