//! What exactly did Nix see? A relay between Nix and the agent that notes every answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::Host;

/// One request and what came of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// The path asked for.
    pub path: String,
    /// The status of the answer; 0 when the connection ended without one.
    pub status: u16,
    /// From the request to the head of the answer.
    pub waited: Duration,
    /// From the request to the last byte of the answer.
    pub took: Duration,
    /// Bytes of the body that came.
    pub bytes: u64,
    /// The body ended before its promised length.
    pub cut: bool,
    /// The longest silence between two pieces of the body.
    pub longest_pause: Duration,
}

/// A relay on a host's loopback; it ends when dropped.
#[derive(Debug)]
pub struct Wiretap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Exchange>>>,
    quit: Arc<AtomicBool>,
}

impl Wiretap {
    /// Relays between clients on `host` and the HTTP server at `upstream` there.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(host: &Host, upstream: SocketAddr) -> Self {
        let listener = host.inside(|| TcpListener::bind("127.0.0.1:0")).expect("wiretap");
        let tap = Self {
            address: listener.local_addr().expect("wiretap"),
            seen: Arc::default(),
            quit: Arc::default(),
        };
        // Sockets belong to the network of the thread that makes them: this thread, and
        // those that it starts, stay on the host.
        let (seen, quit) = (Arc::clone(&tap.seen), Arc::clone(&tap.quit));
        host.inside_forever(move || {
            for client in listener.incoming().flatten() {
                if quit.load(Ordering::Relaxed) {
                    return;
                }
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || relay(client, upstream, &seen));
            }
        });
        tap
    }

    /// Its URL, for Nix instead of the agent's own.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything since the start or the last call, in the order of the answers' ends.
    #[must_use]
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut *self.seen.lock().expect("wiretap"))
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        // The thread ends with the next connection or with the test's process; only its
        // listening socket is left until then.
        self.quit.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            let seen = self.take();
            let odd: Vec<&Exchange> =
                seen.iter().filter(|answer| answer.status != 200 || answer.cut).collect();
            eprintln!("---- {} answers, of which not plainly given: {odd:#?}", seen.len());
        }
    }
}

/// What an agent must never do, whatever its peers do: answer with a server's error.
///
/// # Panics
/// When one of the answers was.
#[track_caller]
pub fn assert_no_server_errors(seen: &[Exchange]) {
    let bad: Vec<&Exchange> = seen.iter().filter(|answer| answer.status >= 500).collect();
    assert!(bad.is_empty(), "answers of 5xx: {bad:#?}");
    let odd: Vec<&Exchange> =
        seen.iter().filter(|answer| ![0, 200, 206, 404].contains(&answer.status)).collect();
    assert!(odd.is_empty(), "answers that Nix does not take for yes or no: {odd:#?}");
}

struct Asked {
    method: String,
    path: String,
    at: Instant,
}

fn relay(client: TcpStream, upstream: SocketAddr, seen: &Mutex<Vec<Exchange>>) {
    // No connection upstream: the client sees its own closed, as with a dead server.
    let Ok(server) = TcpStream::connect(upstream) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let (asked, questions) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = forward_requests(client, &to_server, &asked);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let mut from_server = BufReader::with_capacity(64 << 10, server);
        while let Ok(asked) = questions.recv() {
            let exchange = forward_answer(&mut from_server, &to_client, &asked);
            let ended = exchange.status == 0 || exchange.cut;
            seen.lock().expect("wiretap").push(exchange);
            if ended {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.get_ref().shutdown(Shutdown::Both);
    });
}

/// Requests of Nix to a substituter have no bodies.
fn forward_requests(
    client: TcpStream,
    mut server: &TcpStream,
    asked: &Sender<Asked>,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let head = read_head(&mut client)?;
        let mut words = head.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let question = Asked { method: word(), path: word(), at: Instant::now() };
        if asked.send(question).is_err() {
            return Ok(());
        }
        server.write_all(head.as_bytes())?;
    }
}

/// Reads up to and including the empty line.
fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    loop {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.ends_with("\r\n\r\n") {
            return Ok(head);
        }
    }
}

fn forward_answer(
    server: &mut BufReader<TcpStream>,
    mut client: &TcpStream,
    asked: &Asked,
) -> Exchange {
    let mut exchange = Exchange {
        method: asked.method.clone(),
        path: asked.path.clone(),
        status: 0,
        waited: Duration::ZERO,
        took: Duration::ZERO,
        bytes: 0,
        cut: false,
        longest_pause: Duration::ZERO,
    };
    let head = read_head(server);
    exchange.waited = asked.at.elapsed();
    if let Ok(head) = head {
        exchange.status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let length = content_length(&head);
        let _ = client.write_all(head.as_bytes());
        if asked.method != "HEAD" {
            forward_body(server, client, length, &mut exchange);
        }
    }
    exchange.took = asked.at.elapsed();
    exchange
}

/// The agent gives every answer a length; none is taken for an empty body.
fn content_length(head: &str) -> u64 {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn forward_body(
    server: &mut BufReader<TcpStream>,
    mut client: &TcpStream,
    length: u64,
    exchange: &mut Exchange,
) {
    let mut buffer = vec![0; 64 << 10];
    while exchange.bytes < length {
        let wanted =
            buffer.len().min(usize::try_from(length - exchange.bytes).unwrap_or(usize::MAX));
        let began = Instant::now();
        match server.read(&mut buffer[..wanted]) {
            Ok(0) | Err(_) => {
                exchange.cut = true;
                return;
            }
            Ok(got) => {
                exchange.longest_pause = exchange.longest_pause.max(began.elapsed());
                exchange.bytes += got as u64;
                if client.write_all(&buffer[..got]).is_err() {
                    return; // Nix walked away
                }
            }
        }
    }
}
