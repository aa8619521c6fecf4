//! Latency of narinfo hits and misses over loopback with a substituter in memory, and of an empty
//! response by the same server: `cargo run --release -p haulout-gateway --example latency`.

#![allow(clippy::expect_used, clippy::cast_possible_truncation, reason = "a measuring tool")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Memory, file_nar, key, narinfo_path, start};
use haulout_gateway::GatewayConfig;

/// Requests per connection and row.
const REQUESTS: usize = 20_000;

fn main() {
    let mut memory = Memory::new();
    let references: Vec<_> = (0..8)
        .map(|i| memory.add(&format!("dependency-{i}"), file_nar(&[i]), &[], &key()))
        .collect();
    let references: Vec<_> = references.iter().map(AsRef::as_ref).collect();
    let hit = memory.add("hit", file_nar(b"hello"), &references, &key());
    let gateway = start(Arc::new(memory), GatewayConfig::default());
    println!("{:<28} {:>9} {:>9} {:>9} {:>12}", "", "p50 µs", "p99 µs", "max µs", "requests/s");
    for (name, path) in [
        ("hit", narinfo_path(&hit)),
        ("miss", "/00000000000000000000000000000000.narinfo".to_owned()),
    ] {
        for connections in [1, 16] {
            let begun = Instant::now();
            let clients: Vec<_> = (0..connections)
                .map(|_| {
                    let (addr, path) = (gateway.addr, path.clone());
                    std::thread::spawn(move || ask_often(addr, &path, REQUESTS / connections))
                })
                .collect();
            let mut times: Vec<Duration> =
                clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect();
            let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
            times.sort_unstable();
            let at =
                |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
            println!(
                "narinfo {name}, {connections:>2} connections {:>12.1} {:>9.1} {:>9.1} {rate:>12.0}",
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
}

/// The same question again and again on one connection; the client does as little as possible.
fn ask_often(addr: SocketAddr, path: &str, times: usize) -> Vec<Duration> {
    let mut stream = TcpStream::connect(addr).expect("the gateway listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8.0 Nix/2.34\r\nAccept: */*\r\n\r\n"
    );
    let mut buffer = vec![0; 64 * 1024];
    let mut ask = || {
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).expect("a write");
        let n = stream.read(&mut buffer).expect("an answer");
        assert!(n > 0 && buffer[..n].ends_with(b"\n"), "the whole answer comes in one piece");
        begun.elapsed()
    };
    for _ in 0..times / 20 {
        ask();
    }
    (0..times).map(|_| ask()).collect()
}
