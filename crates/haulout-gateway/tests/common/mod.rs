//! A substituter in memory, a gateway around it on its own thread, and a client that speaks raw
//! bytes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses its own part of this, and a test may panic"
)]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use haulout_gateway::{Cut, GatewayConfig, NarBody, Substituter, api};
use haulout_nix::{HashPart, NarHash, PathInfo, SecretKey, StoreDir};
use tokio::sync::oneshot;

/// Bytes of one piece of a NAR body.
const PIECE: usize = 64 * 1024;

/// How the memory substituter misbehaves for one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `path_info` panics.
    PanicInInfo,
    /// `nar` panics.
    PanicInNar,
    /// The body panics after so many bytes.
    PanicAfter(usize),
    /// The body fails after so many bytes.
    CutAfter(usize),
    /// The body ends (cleanly, wrongly) after so many bytes.
    EndAfter(usize),
    /// The NAR is said to be there and then is not.
    NoNar,
    /// `path_info` never answers.
    Hang,
}

/// Paths in memory.
pub struct Memory {
    dir: StoreDir,
    paths: HashMap<HashPart, (Arc<PathInfo>, Bytes)>,
    pub faults: Mutex<HashMap<HashPart, Fault>>,
}

impl Memory {
    pub fn new() -> Self {
        Self { dir: StoreDir::default(), paths: HashMap::new(), faults: Mutex::default() }
    }

    /// A path with `nar` as its content, referring to `references`, signed by `key`.
    pub fn add(
        &mut self,
        name: &str,
        nar: Vec<u8>,
        references: &[&PathInfo],
        key: &SecretKey,
    ) -> Arc<PathInfo> {
        let mut hash = [0_u8; 20];
        hash.copy_from_slice(
            &NarHash::of(format!("{name}/{}", nar.len()).as_bytes()).as_bytes()[..20],
        );
        let path = format!("{}-{name}", HashPart::from_bytes(hash)).parse().unwrap();
        let mut info = PathInfo {
            path,
            nar_hash: NarHash::of(&nar),
            nar_size: nar.len() as u64,
            references: references.iter().map(|info| info.path.clone()).collect(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        info.normalise();
        info.signatures = vec![info.sign(&self.dir, key)];
        let info = Arc::new(info);
        self.paths.insert(info.path.hash_part(), (Arc::clone(&info), nar.into()));
        info
    }

    pub fn break_path(&self, info: &PathInfo, fault: Fault) {
        self.faults.lock().unwrap().insert(info.path.hash_part(), fault);
    }

    fn fault(&self, hash: HashPart) -> Option<Fault> {
        self.faults.lock().unwrap().get(&hash).copied()
    }
}

impl Substituter for Memory {
    fn store_dir(&self) -> &StoreDir {
        &self.dir
    }

    async fn path_info(&self, hash: HashPart) -> Option<Arc<PathInfo>> {
        match self.fault(hash) {
            Some(Fault::PanicInInfo) => panic!("a bug in path_info (wanted by a test)"),
            Some(Fault::Hang) => std::future::pending().await,
            _ => {}
        }
        self.paths.get(&hash).map(|(info, _)| Arc::clone(info))
    }

    async fn nar(&self, path: HashPart, nar_hash: NarHash, from: u64) -> Option<NarBody> {
        let fault = self.fault(path);
        match fault {
            Some(Fault::PanicInNar) => panic!("a bug in nar (wanted by a test)"),
            Some(Fault::NoNar) => return None,
            _ => {}
        }
        let (info, nar) = self.paths.get(&path)?;
        if info.nar_hash != nar_hash {
            return None;
        }
        let size = nar.len() as u64;
        let rest = nar.slice(usize::try_from(from.min(size)).unwrap()..);
        let good = match fault {
            Some(Fault::PanicAfter(n) | Fault::CutAfter(n) | Fault::EndAfter(n)) => {
                rest.slice(..n.min(rest.len()))
            }
            _ => rest,
        };
        let pieces: Vec<_> = (0..good.len())
            .step_by(PIECE)
            .map(|at| Ok(good.slice(at..(at + PIECE).min(good.len()))))
            .collect();
        let pieces = stream::iter(pieces);
        Some(match fault {
            Some(Fault::CutAfter(_)) => {
                NarBody::new(size, pieces.chain(stream::iter([Err(Cut::new("wanted by a test"))])))
            }
            Some(Fault::PanicAfter(_)) => NarBody::new(
                size,
                pieces.chain(stream::poll_fn(|_| panic!("a bug in the body (wanted by a test)"))),
            ),
            _ => NarBody::new(size, pieces),
        })
    }

    async fn listing(&self, path: HashPart) -> Option<Bytes> {
        self.paths.contains_key(&path).then(|| Bytes::from_static(b"{\"version\":1,\"root\":{}}"))
    }

    async fn build_log(&self, name: &str) -> Option<Bytes> {
        let path: haulout_nix::StorePath = name.parse().ok()?;
        self.paths.contains_key(&path.hash_part()).then(|| Bytes::from_static(b"built\n"))
    }

    async fn status(&self) -> api::AgentStatus {
        api::AgentStatus {
            version: "test".into(),
            state: api::AgentState::Serving,
            ..Default::default()
        }
    }

    async fn peers(&self) -> api::PeersReport {
        api::PeersReport::default()
    }

    async fn why(&self, path: HashPart) -> api::WhyReport {
        api::WhyReport { path: path.to_string(), ..Default::default() }
    }
}

/// A gateway on a thread of its own.
pub struct Running {
    pub addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub fn start<S: Substituter>(substituter: Arc<S>, config: GatewayConfig) -> Running {
    let listener = haulout_gateway::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stopped = async {
            let _ = stopped.await;
        };
        runtime.block_on(haulout_gateway::serve(listener, substituter, config, stopped)).unwrap();
    });
    Running { addr, stop: Some(stop), thread: Some(thread) }
}

impl Running {
    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { stream, held: Vec::new() }
    }

    /// One request on a connection of its own.
    pub fn get(&self, path: &str) -> Reply {
        self.connect().ask("GET", path, "")
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    held: Vec<u8>,
}

/// An answer; `body` is what arrived, `complete` whether that is all that was announced.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub complete: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// `headers` is zero or more lines, each with its CRLF.
    pub fn ask(&mut self, method: &str, path: &str, headers: &str) -> Reply {
        self.send(
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes(),
        );
        self.reply(method == "HEAD").expect("an answer")
    }

    /// The next answer; `None` when the connection ends before its header is complete.
    pub fn reply(&mut self, head_only: bool) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        let head = String::from_utf8(self.held.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let wanted: usize = headers.get("content-length").expect("a length").parse().unwrap();
        if head_only {
            return Some(Reply { status, headers, body: Vec::new(), complete: true });
        }
        while self.held.len() < wanted && self.fill() {}
        let body: Vec<u8> = self.held.drain(..wanted.min(self.held.len())).collect();
        Some(Reply { status, headers, complete: body.len() == wanted, body })
    }

    /// Read once; `false` at the end of the connection.
    fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 256 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.held.extend_from_slice(&buffer[..n]);
                true
            }
        }
    }

    /// Whether the server has closed the connection (waits for it up to the read timeout).
    pub fn is_closed(&mut self) -> bool {
        self.held.clear();
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ),
        }
    }
}

/// A key for tests.
pub fn key() -> SecretKey {
    SecretKey::from_seed("test-1", [7; 32]).unwrap()
}

/// The NAR of one regular file.
pub fn file_nar(content: &[u8]) -> Vec<u8> {
    let mut nar = Vec::new();
    let mut put = |bytes: &[u8]| {
        nar.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        nar.extend_from_slice(bytes);
        nar.resize(nar.len().next_multiple_of(8), 0);
    };
    for token in ["nix-archive-1", "(", "type", "regular", "contents"] {
        put(token.as_bytes());
    }
    put(content);
    put(b")");
    nar
}

/// Bytes that do not repeat.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(len).collect()
}

pub fn nar_path(info: &PathInfo) -> String {
    format!("/{}", haulout_nix::narinfo::raw_url(info))
}

pub fn narinfo_path(info: &PathInfo) -> String {
    format!("/{}.narinfo", info.path.hash_part())
}
