//! One NAR from several sources at once: which byte range to ask from whom next.
//!
//! The NAR is cut into segments that begin at multiples of the segment size. Sources take segments in runs, so that
//! each reads mostly in sequence, and only within a window ahead of the consumer, so that memory is bounded whatever
//! the NAR's size. Progress is judged by bytes, never by a total time: a source that delivers nothing for a while
//! counts as stalled and its segments go to others; what a source has delivered and the caller has verified is never
//! asked for again, also in mid-segment. When nothing is left to hand out, a source may get a copy of a segment that another
//! is late with; the first to deliver a byte wins it.
//!
//! The caller runs the requests. It calls [`NarPlan::next`] for each source until that says to wait, reports
//! [`NarPlan::progress`] or [`NarPlan::failed`], tells how far the consumer is with [`NarPlan::consumed`], and calls
//! [`NarPlan::stalled`] at [`NarPlan::wake_at`].

mod pick;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use smallvec::SmallVec;

pub use types::{Next, PlanConfig, Progress, RequestId, Segment, Stalled, Status};

use crate::estimate::Ewma;
use crate::{Now, PeerId};

/// Frames on the wire are aligned to this many bytes of NAR; so are segments.
pub const FRAME_BYTES: u64 = 256 * 1024;

/// Default segment: 9 ms at 1 Gbit/s, so the request itself costs little, and a lost source costs little.
pub const SEGMENT_BYTES: u64 = 1024 * 1024;

/// Default window ahead of the consumer: what ten sources with one segment each keep busy, and a bound for the memory of one NAR.
pub const WINDOW_BYTES: u64 = 16 * SEGMENT_BYTES;

/// Most sources for one NAR: more add connections, not speed.
pub const SOURCES_MAX: usize = 10;

/// Most segments under way from one source.
pub const DEPTH_MAX: u32 = 4;

/// A source is asked ahead for about this much of its own time: several LAN round trips and a busy scheduler's pause.
pub const PIPELINE_AHEAD: Duration = Duration::from_millis(30);

/// Neighbouring segments that a source takes together where it can.
pub const RUN_SEGMENTS: u64 = 4;

/// With no more than this many segments left, a late one is copied to any source that expects to be faster.
pub const ENDGAME_SEGMENTS: u64 = 3;

/// Most sources that fetch the same segment at the same time.
pub const COPIES_MAX: usize = 2;

/// Failures in a row, without a byte in between, after which a source leaves the plan.
pub const SOURCE_FAILURES_MAX: u32 = 3;

/// A segment inside the window.
#[derive(Debug, Clone)]
struct Piece {
    end: u64,
    /// Everything before this is there.
    verified: u64,
    requests: SmallVec<[RequestId; 2]>,
}

#[derive(Debug, Clone)]
struct Request<S> {
    source: S,
    piece: u64,
    from: u64,
    upto: u64,
    asked: Now,
    /// Its source stalled, so others may take the piece.
    released: bool,
}

/// What the plan knows of a source.
#[derive(Debug, Clone)]
pub struct Source {
    in_flight: u32,
    last_piece: Option<u64>,
    bytes_per_second: Ewma,
    finished_at: Now,
    progress_at: Now,
    stalled: bool,
    failures: u32,
    bytes: u64,
}

impl Source {
    /// Bytes of the NAR that came from it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Requests under way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When it last delivered something, or was first asked after being idle.
    #[must_use]
    pub const fn progress_at(&self) -> Now {
        self.progress_at
    }

    /// Whether it stopped delivering.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        self.stalled
    }
}

/// The state of fetching one NAR. `S` names a source.
#[derive(Debug, Clone)]
pub struct NarPlan<S = PeerId> {
    size: u64,
    start: u64,
    config: PlanConfig,
    /// Number of the piece at the front of `pieces`; all before it are complete.
    first: u64,
    pieces: VecDeque<Piece>,
    consumed: u64,
    requests: BTreeMap<RequestId, Request<S>>,
    sources: BTreeMap<S, Source>,
    refused: BTreeSet<S>,
    next_id: u64,
    wasted: u64,
}

impl<S: Copy + Ord> NarPlan<S> {
    /// A plan for a NAR of `size` bytes, of which the first `from` are there already.
    #[must_use]
    pub fn new(size: u64, from: u64, config: PlanConfig) -> Self {
        // No more than a terabyte each, so that sums cannot overflow.
        let most = 1 << 40;
        let segment_bytes = config.segment_bytes.clamp(1, most).next_multiple_of(FRAME_BYTES);
        let window_bytes = config.window_bytes.clamp(2 * segment_bytes, 4 * most);
        let start = from.min(size);
        Self {
            size,
            start,
            config: PlanConfig { segment_bytes, window_bytes, ..config },
            first: start / segment_bytes,
            pieces: VecDeque::new(),
            consumed: start,
            requests: BTreeMap::new(),
            sources: BTreeMap::new(),
            refused: BTreeSet::new(),
            next_id: 0,
            wasted: 0,
        }
    }

    /// The NAR's size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// A source that has the NAR, or one that was stalled and is to be tried again. False if there are
    /// [`SOURCES_MAX`] already or it was refused.
    pub fn add_source(&mut self, source: S, now: Now) -> bool {
        if let Some(known) = self.sources.get_mut(&source) {
            known.stalled = false;
            known.progress_at = now;
            return true;
        }
        if self.sources.len() >= SOURCES_MAX || self.refused.contains(&source) {
            return false;
        }
        let fresh = Source {
            in_flight: 0,
            last_piece: None,
            bytes_per_second: Ewma::default(),
            finished_at: now,
            progress_at: now,
            stalled: false,
            failures: 0,
            bytes: 0,
        };
        self.sources.insert(source, fresh);
        true
    }

    /// A source is gone or must not be used any more. Returns its requests, to be stopped and not reported.
    pub fn remove_source(&mut self, source: &S) -> Vec<RequestId> {
        self.sources.remove(source);
        let ids: Vec<RequestId> =
            self.requests.iter().filter(|(_, r)| r.source == *source).map(|(id, _)| *id).collect();
        for id in &ids {
            self.forget(*id);
        }
        ids
    }

    /// A source said that it does not have this NAR, or lied about it: it is removed and cannot be added again, so
    /// that a stale announcement costs one round trip and not one after the other. Returns its requests, as
    /// [`NarPlan::remove_source`] does.
    pub fn refuse_source(&mut self, source: &S) -> Vec<RequestId> {
        if self.refused.len() < crate::peers::PEERS_MAX {
            self.refused.insert(*source);
        }
        self.remove_source(source)
    }

    /// The sources in the plan.
    pub fn sources(&self) -> impl Iterator<Item = (&S, &Source)> {
        self.sources.iter()
    }

    /// Bytes that arrived twice.
    #[must_use]
    pub const fn wasted_bytes(&self) -> u64 {
        self.wasted
    }

    /// Everything before this offset is there: may be given to the consumer.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.pieces.front().map_or_else(|| self.piece_start(self.first), |piece| piece.verified)
    }

    /// The consumer has taken everything before `offset`; the window moves.
    pub fn consumed(&mut self, offset: u64) {
        self.consumed = self.consumed.max(offset.min(self.ready()));
    }

    /// Where the plan stands.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.ready() >= self.size {
            Status::Complete
        } else if self.sources.is_empty() {
            Status::NobodyLeft
        } else if self.sources.values().all(|source| source.stalled) {
            Status::AllStalled
        } else {
            Status::Active
        }
    }

    /// Bytes up to `upto` of the NAR have arrived on this request and have been verified (as far as they can be).
    pub fn progress(&mut self, id: RequestId, upto: u64, now: Now) -> Progress<S> {
        let nothing = Progress { fresh: upto..upto, cancel: SmallVec::new(), finished: true };
        let Some(request) = self.requests.get_mut(&id) else {
            return nothing;
        };
        let Some(piece) =
            request.piece.checked_sub(self.first).and_then(|n| self.pieces.get_mut(n as usize))
        else {
            return nothing;
        };
        let upto = upto.clamp(request.upto, piece.end);
        let arrived = upto - request.upto;
        request.upto = upto;
        request.released = false;
        let fresh = piece.verified..upto.max(piece.verified);
        piece.verified = fresh.end;
        self.wasted += arrived.saturating_sub(fresh.end - fresh.start);
        if let Some(source) = self.sources.get_mut(&request.source).filter(|_| arrived > 0) {
            source.progress_at = now;
            source.stalled = false;
            source.failures = 0;
            source.bytes += fresh.end - fresh.start;
        }
        let finished = piece.verified == piece.end;
        let cancel = if finished { self.finish(id, now) } else { SmallVec::new() };
        Progress { fresh, cancel, finished }
    }

    /// Bytes came from this source that do not make a whole verified group yet: it is slow, not stalled.
    pub fn heard(&mut self, source: &S, now: Now) {
        if let Some(source) = self.sources.get_mut(source) {
            source.progress_at = now;
        }
    }

    /// Everything asked for on this request has arrived and is verified.
    pub fn done(&mut self, id: RequestId, now: Now) -> Progress<S> {
        self.progress(id, u64::MAX, now)
    }

    /// The request ended without the rest. What arrived stays; the rest goes to whoever asks next. Returns the source if
    /// it failed too often and is out of the plan; other requests of it are then gone as well.
    pub fn failed(&mut self, id: RequestId) -> Option<S> {
        let request = self.forget(id)?;
        let source = self.sources.get_mut(&request.source)?;
        source.failures += 1;
        source.last_piece = None;
        if source.failures < SOURCE_FAILURES_MAX {
            return None;
        }
        self.remove_source(&request.source);
        Some(request.source)
    }

    /// Sources from which nothing came for too long; each is named once, then its segments are free for others. It gets
    /// nothing more until it delivers a byte or is added again.
    pub fn stalled(&mut self, now: Now) -> Vec<Stalled<S>> {
        let mut found = Vec::new();
        for (name, source) in &mut self.sources {
            let idle = now.since(source.progress_at);
            if source.stalled || source.in_flight == 0 || idle < self.config.stall_after {
                continue;
            }
            source.stalled = true;
            source.last_piece = None;
            let mut requests = SmallVec::new();
            for (id, request) in self.requests.iter_mut().filter(|(_, r)| r.source == *name) {
                request.released = true;
                requests.push(*id);
            }
            found.push(Stalled { source: *name, requests });
        }
        found
    }

    /// When to call [`NarPlan::stalled`] and [`NarPlan::next`] again if nothing happens before.
    #[must_use]
    pub fn wake_at(&self, now: Now) -> Option<Now> {
        let stall = self
            .sources
            .values()
            .filter(|source| source.in_flight > 0 && !source.stalled)
            .map(|source| source.progress_at + self.config.stall_after);
        // Lateness shows only with time: look in steps of the hedge delay while anything is under way.
        let hedge = (!self.requests.is_empty()).then(|| now + self.config.hedge_after);
        stall.chain(hedge).min().map(|at| at.max(now))
    }

    /// First byte of a piece.
    fn piece_start(&self, index: u64) -> u64 {
        index.saturating_mul(self.config.segment_bytes).clamp(self.start, self.size)
    }

    /// A piece is complete: book its requests, and move on.
    fn finish(&mut self, winner: RequestId, now: Now) -> SmallVec<[(S, RequestId); 2]> {
        let mut cancel = SmallVec::new();
        let Some(index) = self.requests.get(&winner).map(|request| request.piece) else {
            return cancel;
        };
        let ids = std::mem::take(&mut self.pieces[(index - self.first) as usize].requests);
        for id in ids {
            let Some(request) = self.forget(id) else {
                continue;
            };
            if let Some(source) = self.sources.get_mut(&request.source) {
                let since = request.asked.max(source.finished_at);
                let seconds = now.since(since).as_secs_f64();
                if seconds > 0.0 {
                    source.bytes_per_second.add((request.upto - request.from) as f64 / seconds);
                }
                source.finished_at = now;
            }
            if id != winner {
                cancel.push((request.source, id));
            }
        }
        while self.pieces.front().is_some_and(|piece| piece.verified == piece.end) {
            self.pieces.pop_front();
            self.first += 1;
        }
        cancel
    }

    /// Removes a request from all books.
    fn forget(&mut self, id: RequestId) -> Option<Request<S>> {
        let request = self.requests.remove(&id)?;
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.in_flight -= 1;
        }
        if let Some(piece) =
            request.piece.checked_sub(self.first).and_then(|n| self.pieces.get_mut(n as usize))
        {
            piece.requests.retain(|other| *other != id);
        }
        Some(request)
    }
}
