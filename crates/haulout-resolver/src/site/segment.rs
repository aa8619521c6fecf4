//! One segment: what is here of it, who reads it, who gave it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use haulout_cache::SpilledPiece;
use haulout_mesh::{SiteEnd, SitePiece};
use haulout_swarm::PeerId;
use haulout_swarm::rate::Urgency;
use haulout_swarm::site::{Origin, SegmentKey, SiteKind, Worth};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{CameFrom, SiteObject, lock};

/// Peers that are remembered to have had a piece: more make no difference, nobody waits for all of so many.
pub(super) const GIVEN_MAX: usize = 64;

/// Bytes read from the disk at once.
const DISK_READ: usize = 256 << 10;

/// Who reads a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// This machine's Nix.
    Nix,
    /// This machine, before Nix asks.
    Ahead,
    /// A peer, for its Nix or before that asks.
    Peer(PeerId, Urgency),
}

impl Reader {
    /// Whether somebody waits for it.
    pub(crate) const fn urgency(self) -> Urgency {
        match self {
            Self::Nix => Urgency::Awaited,
            Self::Ahead => Urgency::Ahead,
            Self::Peer(_, urgency) => urgency,
        }
    }
}

/// What is here of a segment: its beginning.
struct State {
    chunks: Vec<Bytes>,
    /// Where it is, instead of in `chunks`.
    on_disk: Option<Arc<SpilledPiece>>,
    /// It is being written to the disk.
    leaving: bool,
    have: u64,
    end: Option<SiteEnd>,
    /// Who gave bytes.
    suppliers: Vec<Origin>,
    /// This machine had it all.
    kept: bool,
    /// [`Segment::attribute`] was asked before.
    attributed: bool,
    /// Peers that have begun to rely on us since the driver looked.
    relying: Vec<PeerId>,
    readers: usize,
    /// Those of them that somebody waits for.
    awaited: usize,
    driven: bool,
    /// It is being fetched from outside.
    outside: bool,
    touched: Instant,
    /// This machine's Nix has read it to its end.
    read: bool,
    /// Peers that have, at most [`GIVEN_MAX`].
    given: Vec<PeerId>,
}

/// A segment, filled by at most one driver, read by anybody.
pub(crate) struct Segment {
    pub(crate) object: SiteObject,
    pub(crate) index: u32,
    state: Mutex<State>,
    /// Bytes came, or it ended.
    news: Notify,
    /// A reader came or left, a peer relies on us.
    moved: Notify,
}

/// Bytes of a segment, by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) in_memory: u64,
    pub(super) leaving: u64,
    pub(super) on_disk: u64,
}

impl std::iter::Sum for Held {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            in_memory: sum.in_memory + one.in_memory,
            leaving: sum.leaving + one.leaving,
            on_disk: sum.on_disk + one.on_disk,
        })
    }
}

/// What a driver finds when it looks.
pub(super) struct Demand {
    pub(super) readers: usize,
    pub(super) urgency: Urgency,
    pub(super) relying: Vec<PeerId>,
}

impl Segment {
    pub(super) fn new(object: SiteObject, index: u32) -> Self {
        let state = State {
            chunks: Vec::new(),
            on_disk: None,
            leaving: false,
            have: 0,
            end: None,
            suppliers: Vec::new(),
            kept: false,
            attributed: false,
            relying: Vec::new(),
            readers: 0,
            awaited: 0,
            driven: false,
            outside: false,
            touched: Instant::now(),
            read: false,
            given: Vec::new(),
        };
        Self { object, index, state: Mutex::new(state), news: Notify::new(), moved: Notify::new() }
    }

    pub(super) fn key(&self) -> SegmentKey {
        self.object.key.segment(self.index)
    }

    /// Its length; `None` for a document.
    fn len(&self) -> Option<u64> {
        self.object.segment_len(self.index)
    }

    /// Bytes held in memory that will stay there, those on the disk, and those on their way there.
    pub(super) fn bytes(&self) -> Held {
        let state = lock(&self.state);
        match (&state.on_disk, state.leaving) {
            (Some(piece), _) => Held { on_disk: piece.len(), ..Held::default() },
            (None, true) => Held { leaving: state.have, ..Held::default() },
            (None, false) => Held { in_memory: state.have, ..Held::default() },
        }
    }

    /// Takes what is to be written to the disk, if it is complete and nobody uses it.
    pub(super) fn leave(&self) -> Option<Vec<Bytes>> {
        let mut state = lock(&self.state);
        let whole = state.end == Some(SiteEnd::Complete) && !state.chunks.is_empty();
        if !whole || state.leaving || state.readers > 0 {
            return None;
        }
        state.leaving = true;
        Some(state.chunks.clone())
    }

    /// It is on the disk now. Whoever reads goes on there.
    pub(super) fn left(&self, piece: SpilledPiece) {
        let mut state = lock(&self.state);
        state.leaving = false;
        state.chunks = Vec::new();
        state.on_disk = Some(Arc::new(piece));
    }

    /// The disk does not give back what was put there: it has to be fetched once more.
    fn lost(&self) {
        let mut state = lock(&self.state);
        state.on_disk = None;
        (state.have, state.end) = (0, None);
        state.suppliers.clear();
    }

    /// Bytes held, or, while it is filled, that will be.
    pub(super) fn bytes_coming(&self) -> u64 {
        let state = lock(&self.state);
        let coming = if state.driven { self.len() } else { None };
        coming.unwrap_or(0).max(state.have)
    }

    /// Since when nobody has used it; `None` while somebody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.readers == 0 && !state.driven).then_some(state.touched)
    }

    /// What it is good for, where `others` peers may want it.
    pub(super) fn worth(&self, others: usize) -> Worth {
        let state = lock(&self.state);
        // What a neighbour holds costs nobody's line.
        let outside = self.object.key.kind != SiteKind::Nar;
        let fetched = outside && state.suppliers.contains(&Origin::Outside);
        Worth::of(fetched, state.read, state.given.len(), others.min(GIVEN_MAX))
    }

    /// Whether it is complete, or being filled.
    pub(super) fn is_alive(&self) -> bool {
        let state = lock(&self.state);
        state.driven || state.end.is_some()
    }

    /// Says whether it is being fetched from outside now.
    pub(super) fn comes_from_outside(&self, outside: bool) {
        lock(&self.state).outside = outside;
    }

    /// Whether it can be given to somebody who would else go outside: it is complete, or comes from outside now.
    pub(super) fn is_held(&self) -> bool {
        let state = lock(&self.state);
        state.end == Some(SiteEnd::Complete) || state.driven && state.outside
    }

    /// Takes the duty to fill it, if nobody has it and it is not over; gives the bytes that are there.
    pub(super) fn take_over(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.driven || state.end.is_some() {
            return None;
        }
        state.driven = true;
        Some(state.have)
    }

    /// Adds bytes at the end of what is there; what is there already is skipped.
    pub(super) fn put(&self, at: u64, mut bytes: Bytes, from: Origin) -> u64 {
        let mut state = lock(&self.state);
        let skip = usize::try_from(state.have.saturating_sub(at)).unwrap_or(usize::MAX);
        if at <= state.have && skip < bytes.len() {
            let fresh = bytes.split_off(skip);
            state.have += fresh.len() as u64;
            state.chunks.push(fresh);
            if !state.suppliers.contains(&from) {
                state.suppliers.push(from);
            }
        }
        let have = state.have;
        drop(state);
        self.news.notify_waiters();
        have
    }

    /// Takes all of it from what this machine keeps.
    pub(super) fn put_kept(&self, whole: Bytes) {
        let mut state = lock(&self.state);
        state.have = whole.len() as u64;
        state.chunks = vec![whole];
        state.suppliers.clear();
        state.kept = true;
        drop(state);
        self.news.notify_waiters();
    }

    /// Where its bytes came from.
    pub(super) fn came_from(&self) -> CameFrom {
        let state = lock(&self.state);
        match state.suppliers.iter().any(|from| matches!(from, Origin::Peer(_))) {
            true => CameFrom::Peers,
            false if state.kept => CameFrom::Here,
            false => CameFrom::Outside,
        }
    }

    /// For counters: where its bytes came from the first time, from here whenever it is read again.
    pub(super) fn attribute(&self) -> CameFrom {
        let from = self.came_from();
        let again = std::mem::replace(&mut lock(&self.state).attributed, true);
        if again { CameFrom::Here } else { from }
    }

    /// Begins anew: a document from another source.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.chunks.clear();
        state.suppliers.clear();
        state.have = 0;
    }

    /// The driver is done: for good with an end, or because nobody wants it now.
    pub(super) fn released(&self, end: Option<SiteEnd>) {
        let mut state = lock(&self.state);
        (state.driven, state.outside) = (false, false);
        state.end = end;
        state.touched = Instant::now();
        drop(state);
        self.news.notify_waiters();
    }

    /// A peer relies on us for it.
    pub(super) fn relied_on_by(&self, peer: PeerId) {
        let mut state = lock(&self.state);
        if state.driven {
            state.relying.push(peer);
        }
        drop(state);
        self.moved.notify_waiters();
    }

    pub(super) fn demand(&self) -> Demand {
        let mut state = lock(&self.state);
        let urgency = if state.awaited > 0 { Urgency::Awaited } else { Urgency::Ahead };
        Demand { readers: state.readers, urgency, relying: std::mem::take(&mut state.relying) }
    }

    /// Waits for a change of the demand after `notified` was made.
    pub(super) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.moved.notified()
    }

    /// The one peer that all of it came from.
    pub(super) fn only_supplier(&self) -> Option<PeerId> {
        match lock(&self.state).suppliers.as_slice() {
            [Origin::Peer(peer)] => Some(*peer),
            _ => None,
        }
    }

    /// The peers that gave bytes of it.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        let peer = |origin: &Origin| match origin {
            Origin::Peer(peer) => Some(*peer),
            Origin::Outside => None,
        };
        lock(&self.state).suppliers.iter().filter_map(peer).collect()
    }

    /// Whether it has exactly these bytes.
    pub(super) fn is(&self, other: &[Bytes]) -> bool {
        let state = lock(&self.state);
        let flat = |pieces: &[Bytes]| pieces.concat();
        flat(&state.chunks) == flat(other)
    }

    /// A reader from byte `at`.
    pub(super) fn read(self: &Arc<Self>, at: u64, who: Reader) -> SegmentReader {
        let mut state = lock(&self.state);
        state.readers += 1;
        state.awaited += usize::from(who.urgency() == Urgency::Awaited);
        drop(state);
        self.moved.notify_waiters();
        SegmentReader { segment: Arc::clone(self), at, who }
    }
}

/// One reader of a segment.
pub(crate) struct SegmentReader {
    segment: Arc<Segment>,
    at: u64,
    who: Reader,
}

impl State {
    /// Somebody has had all of it.
    fn had(&mut self, who: Reader) {
        match who {
            Reader::Nix => self.read = true,
            Reader::Ahead => {}
            Reader::Peer(peer, _) => {
                if self.given.len() < GIVEN_MAX && !self.given.contains(&peer) {
                    self.given.push(peer);
                }
            }
        }
    }
}

impl SegmentReader {
    /// The next bytes as soon as they are here, or how it ends. Safe to cancel.
    pub(crate) async fn next(&mut self) -> SitePiece {
        let segment = Arc::clone(&self.segment);
        loop {
            let news = segment.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(piece) = self.on_disk() {
                return self.read_disk(piece).await;
            }
            {
                let mut state = lock(&self.segment.state);
                if state.on_disk.is_some() {
                    continue;
                }
                // Of a document nothing is given before its end: its source may yet be another.
                let settled =
                    self.segment.object.size.is_some() || state.end == Some(SiteEnd::Complete);
                if let Some(bytes) = piece(&state.chunks, self.at).filter(|_| settled) {
                    self.at += bytes.len() as u64;
                    state.touched = Instant::now();
                    if self.segment.len() == Some(self.at) {
                        state.had(self.who);
                    }
                    return SitePiece::Bytes(bytes);
                }
                if let Some(end) = state.end {
                    if end == SiteEnd::Complete {
                        state.had(self.who);
                    }
                    return SitePiece::End(end);
                }
                if !state.driven {
                    // Its driver went away between two looks: whoever reads starts another one.
                    return SitePiece::End(SiteEnd::Failed);
                }
            }
            news.await;
        }
    }

    /// Where it is on the disk, if it is there.
    fn on_disk(&self) -> Option<Arc<SpilledPiece>> {
        lock(&self.segment.state).on_disk.clone()
    }

    async fn read_disk(&mut self, piece: Arc<SpilledPiece>) -> SitePiece {
        let (at, len) = (self.at, piece.len());
        if at >= len {
            lock(&self.segment.state).had(self.who);
            return SitePiece::End(SiteEnd::Complete);
        }
        let read = tokio::task::spawn_blocking(move || piece.read(at, DISK_READ)).await;
        let Ok(Ok(bytes)) = read else {
            tracing::warn!(?read, "a piece cannot be read from the disk; it is fetched again");
            self.segment.lost();
            return SitePiece::End(SiteEnd::Failed);
        };
        self.at += bytes.len() as u64;
        let mut state = lock(&self.segment.state);
        state.touched = Instant::now();
        if self.at == len {
            state.had(self.who);
        }
        SitePiece::Bytes(bytes.into())
    }
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        let mut state = lock(&self.segment.state);
        state.readers -= 1;
        state.awaited -= usize::from(self.who.urgency() == Urgency::Awaited);
        state.touched = Instant::now();
        drop(state);
        self.segment.moved.notify_waiters();
    }
}

fn piece(chunks: &[Bytes], at: u64) -> Option<Bytes> {
    let mut start = 0;
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        if at < end {
            return Some(chunk.slice(usize::try_from(at - start).ok()?..));
        }
        start = end;
    }
    None
}
