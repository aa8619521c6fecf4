//! `haulout archive import --from` HTTP and S3: signatures kept, killed and gone on with, and caches that lie.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Arc, Condvar, Mutex};

use haulout_nix::PathInfo;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use support::stderr;

/// A store, the binary cache that was made of it, and archives in directories.
struct World(support::World);

impl std::ops::Deref for World {
    type Target = support::World;

    fn deref(&self) -> &support::World {
        &self.0
    }
}

fn world() -> World {
    let world = support::World::new(16, 2_000_000);
    world.push("cache");
    World(world)
}

impl World {
    /// Of four shards: blobs are small, so that packs are stored all the time.
    fn archive(&self, name: &str) -> String {
        self.0.archive(name, 4)
    }

    fn import(&self, from: &str, archive: &str) -> Command {
        let top = self.top();
        self.command(&["archive", "import", "--json", "--from", from, &top, "--archive", archive])
    }

    /// Where the archive stands.
    fn sequence(&self, archive: &str) -> u64 {
        let status = self.ok(&["archive", "status", "--json", "--archive", archive]);
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["sequence"].as_u64().unwrap()
    }

    /// The archive has what was published straight from the store: paths, hashes and signatures.
    fn assert_complete(&self, archive: &str) {
        let (direct, root) = (self.archive("direct"), self.path("store"));
        let top = self.top();
        self.ok(&["archive", "publish", &top, "--store-root", &root, "--archive", &direct]);
        assert_eq!(self.ok(&["archive", "diff", &direct, archive]), "");
        self.ok(&["archive", "verify", "--deep", "--archive", archive]);
        let top = self.ok(&["archive", "cat", "--narinfo", &self.top(), "--archive", archive]);
        assert!(top.contains("Sig: cli-1:"), "{top}");
    }
}

fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a cache does to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// Says nothing until [`Cache::go_on`].
    Wait,
    /// Breaks off in the middle.
    Cut,
    /// There is no such file.
    Absent,
    /// These bytes instead.
    Instead(Vec<u8>),
}

#[derive(Default)]
struct State {
    /// By a part of the path.
    faults: Vec<(String, Fault)>,
    asked: HashMap<String, usize>,
    going_on: bool,
}

/// A directory over HTTP/1.1, one request a connection.
#[derive(Clone)]
struct Cache {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Cache {
    fn serve(dir: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cache = Self { address, state: Arc::default() };
        let served = cache.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (cache, dir) = (served.clone(), dir.clone());
                // Whoever hangs up in the middle is no concern of the cache.
                std::thread::spawn(move || drop(cache.answer(&stream, &dir)));
            }
        });
        cache
    }

    fn answer(&self, mut stream: &TcpStream, dir: &Path) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let fault = self.note(&path);
        let file = std::fs::read(dir.join(path.trim_start_matches('/'))).ok();
        let body = match (&fault, file) {
            (Some(Fault::Absent), _) | (None | Some(Fault::Cut | Fault::Wait), None) => {
                let none =
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                return stream.write_all(none);
            }
            (Some(Fault::Instead(bytes)), _) => bytes.clone(),
            (_, Some(bytes)) => bytes,
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        let most = if fault == Some(Fault::Cut) { body.len() / 2 } else { body.len() };
        stream.write_all(&body[..most])
    }

    fn note(&self, path: &str) -> Option<Fault> {
        let (state, changed) = &*self.state;
        let mut state = state.lock().unwrap();
        *state.asked.entry(path.to_owned()).or_default() += 1;
        changed.notify_all();
        let fault = state.faults.iter().find(|(part, _)| path.contains(part));
        let fault = fault.map(|(_, fault)| fault.clone());
        if fault == Some(Fault::Wait) {
            state = changed.wait_while(state, |state| !state.going_on).unwrap();
            drop(state);
            return None;
        }
        fault
    }

    fn set_faults(&self, faults: Vec<(String, Fault)>) {
        self.state.0.lock().unwrap().faults = faults;
    }

    fn wait_for(&self, part: &str) {
        let (state, changed) = &*self.state;
        let asked = |state: &mut State| state.asked.keys().any(|path| path.contains(part));
        drop(changed.wait_while(state.lock().unwrap(), |state| !asked(state)).unwrap());
    }

    fn go_on(&self) {
        let mut state = self.state.0.lock().unwrap();
        state.going_on = true;
        state.asked.clear();
        state.faults.clear();
        self.state.1.notify_all();
    }

    /// NARs that were asked for since.
    fn nars(&self) -> usize {
        let state = self.state.0.lock().unwrap();
        state.asked.keys().filter(|path| path.contains("/nar/")).count()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// What the cache's narinfo of a path says of a field.
fn field(world: &World, info: &PathInfo, name: &str) -> String {
    let file = Path::new(&world.path("cache")).join(format!("{}.narinfo", info.path.hash_part()));
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned()
}

#[test]
fn over_http_with_its_signatures_and_on_after_a_kill() {
    let world = world();
    let cache = Cache::serve(world.path("cache").into());
    let archive = world.archive("ours");
    // Killed while it waits for its last NAR: packing goes depth first, and the top comes last.
    let last =
        field(&world, world.store.paths.iter().find(|i| i.path == world.store.top).unwrap(), "URL");
    cache.set_faults(vec![(last.clone(), Fault::Wait)]);
    let mut killed: Child = world.import(&cache.url(), &archive).spawn().unwrap();
    cache.wait_for(&last);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(world.sequence(&archive), 0, "nothing half-published is visible");

    cache.go_on();
    let report = report(&world.import(&cache.url(), &archive).output().unwrap());
    let paths = world.store.paths.len() as u64;
    let resumed = report["resumed"].as_u64().unwrap();
    assert_eq!((&report["added"], &report["sequence"]), (&paths.into(), &1.into()), "{report}");
    assert!(resumed > 0, "{report}");
    assert_eq!(cache.nars() as u64, paths - resumed, "what was stored is not fetched again");
    world.assert_complete(&archive);
}

#[test]
fn from_a_bucket() {
    let world = world();
    std::fs::create_dir(world.path("s3")).unwrap();
    std::fs::rename(world.path("cache"), Path::new(&world.path("s3")).join("bucket")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let root = world.path("s3");
    let address = runtime.block_on(async move {
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        builder.set_auth(SimpleAuth::from_single("AKIATEST", "s3cret"));
        let service = builder.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    });
    let url = format!("s3://bucket?endpoint=http://{address}&region=eu-test-1");
    let archive = world.archive("ours");
    let done = world.import(&url, &archive).output().unwrap();
    assert_eq!(report(&done)["added"], world.store.paths.len());
    world.assert_complete(&archive);

    // A bucket cannot be listed here, and a wrong secret is said to be one.
    let all = world.command(&["archive", "import", "--from", &url, "--archive", &archive]).output();
    assert!(stderr(&all.unwrap()).contains("cannot be listed"));
    let mut wrong = world.import(&url, &world.archive("wrong"));
    let refused = wrong.env("AWS_SECRET_ACCESS_KEY", "guess").output().unwrap();
    let text = stderr(&refused);
    assert!(!refused.status.success() && text.starts_with("error: "), "{text}");
}

#[test]
fn a_cache_that_lies_gets_nothing_into_an_archive() {
    let world = world();
    let cache = Cache::serve(world.path("cache").into());
    let archive = world.archive("ours");
    let largest = world.store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    let (url, narinfo) =
        (field(&world, largest, "URL"), format!("{}.narinfo", largest.path.hash_part()));
    let good = std::fs::read(Path::new(&world.path("cache")).join(&url)).unwrap();
    let text = std::fs::read_to_string(Path::new(&world.path("cache")).join(&narinfo)).unwrap();
    let other = world.store.paths.iter().find(|info| info.path != largest.path).unwrap();
    let mut altered = good.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let size = format!("NarSize: {}", largest.nar_size);
    let lies = [
        (&url, Fault::Instead(altered)),
        (&url, Fault::Instead([good.clone(), good.clone()].concat())),
        (&url, Fault::Instead(vec![0; 40_000])),
        (&url, Fault::Instead(Vec::new())),
        (&url, Fault::Cut),
        (&url, Fault::Absent),
        (&narinfo, Fault::Absent),
        (&narinfo, Fault::Instead(vec![b'x'; 4 << 20])),
        (&narinfo, Fault::Instead(text.replace(&size, "NarSize: 17").into_bytes())),
        (&narinfo, Fault::Instead(text.replace(&size, "NarSize: 99999999999999").into_bytes())),
        // With any other, more than there are bytes.
        (
            &narinfo,
            Fault::Instead(text.replace(&size, &format!("NarSize: {}", u64::MAX)).into_bytes()),
        ),
        (
            &narinfo,
            Fault::Instead(
                text.replace(&largest.path.to_string(), &other.path.to_string()).into_bytes(),
            ),
        ),
    ];
    for (file, lie) in lies {
        let shown = format!("{file} {:?}", lie).chars().take(80).collect::<String>();
        cache.set_faults(vec![(file.clone(), lie)]);
        let output = world.import(&cache.url(), &archive).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{shown}: {text}");
        assert!(text.starts_with("error: ") && text.contains("because: "), "{shown}: {text}");
        assert_eq!(world.sequence(&archive), 0, "{shown}");
    }
    // It mends its ways, and what was right all along was kept.
    cache.go_on();
    let report = report(&world.import(&cache.url(), &archive).output().unwrap());
    assert_eq!(report["added"], world.store.paths.len());
    world.assert_complete(&archive);
}
