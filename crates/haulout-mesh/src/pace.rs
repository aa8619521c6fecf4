//! How fast bytes go to peers, where the settings limit that.
//!
//! What is limited is cut into small pieces, so that every stream moves now and then: the other end takes one that stands still
//! for a dead one. Peers share the limit on all of them alike, however many streams each has.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use haulout_swarm::PeerId;
use haulout_swarm::rate::{FairLine, Turn, Urgency};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::registry::{Link, Shared, lock};

/// A piece takes this much of the line's time: a hundred streams side by side each move within a second.
const PIECE_TIME: Duration = Duration::from_millis(10);
/// The smallest piece, in bytes: below it the headers of packets count.
const PIECE_MIN: u64 = 1 << 10;
/// The largest, in bytes: a frame.
const PIECE_MAX: u64 = 256 << 10;

/// The limit on what is given to all peers together.
pub(crate) struct Uplink {
    state: Mutex<State>,
}

struct State {
    line: FairLine<oneshot::Sender<()>>,
    /// Somebody is handing out turns.
    driven: bool,
}

impl Uplink {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { state: Mutex::new(State { line: FairLine::new(bytes_per_second), driven: false }) }
    }

    fn rate(&self) -> Option<u64> {
        lock(&self.state).line.rate()
    }

    /// Gets in line. True if the caller must see to it that turns are handed out.
    fn push(&self, peer: PeerId, urgency: Urgency, bytes: u64) -> (oneshot::Receiver<()>, bool) {
        let (go, turn) = oneshot::channel();
        let mut state = lock(&self.state);
        state.line.push(peer, urgency, bytes, go);
        let begin = !std::mem::replace(&mut state.driven, true);
        (turn, begin)
    }
}

/// Hands out turns as long as anybody waits.
async fn drive(shared: Arc<Shared>) {
    loop {
        let wait = {
            let mut state = lock(&shared.upload.state);
            match state.line.turn(shared.now(), |ticket| !ticket.is_closed()) {
                Turn::Go(ticket) => {
                    // Who has gone meanwhile has no use for it.
                    let _ = ticket.send(());
                    continue;
                }
                Turn::Wait(wait) => wait,
                Turn::Nobody => {
                    state.driven = false;
                    return;
                }
            }
        };
        sleep(wait).await;
    }
}

/// How many bytes may go at a time; `None`: nothing is limited.
pub(crate) fn piece(shared: &Shared, link: &Link) -> Option<usize> {
    let rates = [shared.upload.rate(), lock(&link.upload).rate()];
    let slowest = rates.into_iter().flatten().min()?;
    let bytes = slowest.saturating_mul(PIECE_TIME.as_millis() as u64) / 1000;
    usize::try_from(bytes.clamp(PIECE_MIN, PIECE_MAX)).ok()
}

/// Waits until `bytes`, a [`piece`] at most, may go to this peer: for its own limit and for everybody's.
pub(crate) async fn wait(shared: &Arc<Shared>, link: &Link, urgency: Urgency, bytes: usize) {
    let bytes = bytes as u64;
    let own = lock(&link.upload).book(bytes, shared.now());
    if !own.is_zero() {
        sleep(own).await;
    }
    if shared.upload.rate().is_some() {
        let (turn, begin) = shared.upload.push(link.peer, urgency, bytes);
        if begin {
            tokio::spawn(drive(Arc::clone(shared)));
        }
        // Without anybody to hand out turns the mesh is shutting down.
        let _ = turn.await;
    }
}
