//! How fast bytes go to peers, where the settings limit that.
//!
//! What is limited is cut into small pieces, so that every stream moves now and then: the other end takes one that stands still
//! for a dead one. Peers share the limit on all of them alike, however many streams each has; of the streams to one peer those
//! go first that somebody waits for.

use std::time::Duration;

use haulout_swarm::rate::Urgency;

use crate::registry::{Link, Shared};

/// A piece takes this much of the line's time: a hundred streams side by side each move within a second.
const PIECE_TIME: Duration = Duration::from_millis(10);
/// The smallest piece, in bytes: below it the headers of packets count.
const PIECE_MIN: u64 = 1 << 10;
/// The largest, in bytes: a frame.
const PIECE_MAX: u64 = 256 << 10;

/// How many bytes may go at a time; `None`: nothing is limited.
pub(crate) fn piece(shared: &Shared, link: &Link) -> Option<usize> {
    let rates = [shared.upload.rate(), link.upload.rate()];
    let slowest = rates.into_iter().flatten().min()?;
    let bytes = slowest.saturating_mul(PIECE_TIME.as_millis() as u64) / 1000;
    usize::try_from(bytes.clamp(PIECE_MIN, PIECE_MAX)).ok()
}

/// Waits until `bytes`, a [`piece`] at most, may go to this peer: for its own limit and for everybody's.
pub(crate) async fn wait(shared: &Shared, link: &Link, urgency: Urgency, bytes: usize) {
    for line in [&link.upload, &shared.upload] {
        line.turn(link.peer, urgency, bytes as u64).await;
    }
}
