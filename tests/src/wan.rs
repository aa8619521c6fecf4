//! A slow line to the world outside: a relay in front of a server, with a rate, a delay, and a counter.
//!
//! The bytes of all connections share one rate, as on one uplink; each piece arrives half a round trip after it was sent.
//! A relay and not a queueing discipline, because the kernel's delay is missing on many machines, and because what is
//! counted here is what is billed: the bytes of the conversation.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::Host;

/// Most bytes read at once: 5 ms of a line of 100 Mbit/s.
const PIECE: usize = 64 << 10;
/// Pieces of one connection on the way.
const PIECES: usize = 64;

/// The line. Ends with the test's process.
#[derive(Debug, Clone)]
pub struct Wan {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    bytes_per_second: f64,
    half_trip: Duration,
    /// When the line is free again.
    free_at: Mutex<Instant>,
    down: AtomicU64,
}

impl Wan {
    /// A line to `server`, ending at `host`.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(
        host: &Host,
        server: SocketAddr,
        bits_per_second: u64,
        round_trip: Duration,
    ) -> Self {
        let address = SocketAddr::from((host.address(), 0));
        let listener = host.inside(|| TcpListener::bind(address)).expect("the line's near end");
        let wan = Self {
            address: listener.local_addr().expect("the line's near end"),
            line: Arc::new(Line {
                bytes_per_second: bits_per_second as f64 / 8.0,
                half_trip: round_trip / 2,
                free_at: Mutex::new(Instant::now()),
                down: AtomicU64::new(0),
            }),
        };
        let line = Arc::clone(&wan.line);
        host.inside_forever(move || {
            for near in listener.incoming().flatten() {
                let line = Arc::clone(&line);
                std::thread::spawn(move || {
                    // Half a trip for the handshake, half for its answer.
                    std::thread::sleep(2 * line.half_trip);
                    if let Ok(far) = TcpStream::connect(server) {
                        line.join(near, far);
                    }
                });
            }
        });
        wan
    }

    /// Its URL, instead of the server's own.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that came down the line since the start.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.line.down.load(Ordering::Relaxed)
    }
}

impl Line {
    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (Ok(near_in), Ok(far_out)) = (near.try_clone(), far.try_clone()) else { return };
        let up = Arc::clone(self);
        std::thread::spawn(move || up.carry(near_in, far_out, false));
        self.carry(far, near, true);
    }

    /// Carries one direction to its end.
    fn carry(self: &Arc<Self>, mut from: TcpStream, to: TcpStream, counted: bool) {
        let (send, pieces) = sync_channel(PIECES);
        let (writer, reader) = (to, from.try_clone());
        let delivering = std::thread::spawn(move || deliver(&pieces, writer));
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let arrives = self.occupy(length, counted) + self.half_trip;
            if send.send((arrives, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
        drop(send);
        let _ = delivering.join();
        if let Ok(reader) = reader {
            let _ = reader.shutdown(Shutdown::Read);
        }
    }

    /// Puts bytes on the line; when the last of them is on it. What goes up is small and not held up.
    fn occupy(&self, length: usize, counted: bool) -> Instant {
        let now = Instant::now();
        if !counted {
            return now;
        }
        self.down.fetch_add(length as u64, Ordering::Relaxed);
        let mut free_at = self.free_at.lock().expect("the line");
        let time = Duration::from_secs_f64(length as f64 / self.bytes_per_second);
        *free_at = (*free_at).max(now) + time;
        let until = *free_at;
        drop(free_at);
        // Not more than a little is queued: the sender feels the line.
        std::thread::sleep(until.saturating_duration_since(now + Duration::from_millis(20)));
        until
    }
}

fn deliver(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((arrives, piece)) = pieces.recv() {
        std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
