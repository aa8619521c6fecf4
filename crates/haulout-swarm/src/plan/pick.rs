//! The choice of the next segment for a source.

use std::time::Duration;

use smallvec::SmallVec;

use super::{
    COPIES_MAX, DEPTH_MAX, ENDGAME_SEGMENTS, NarPlan, Next, PIPELINE_AHEAD, Piece, RUN_SEGMENTS,
    Request, RequestId, Segment, Source,
};
use crate::Now;
use crate::choose::THROUGHPUT_ASSUMED;

/// Segments under way from a source whose speed is not known yet.
const DEPTH_UNKNOWN: u32 = 2;

/// Outside the endgame a segment is copied only to a source that needs less than half the time.
const COPY_GAIN: f64 = 2.0;

impl<S: Copy + Ord> NarPlan<S> {
    /// What to ask `source` for next.
    pub fn next(&mut self, source: S, now: Now) -> Next {
        if self.ready() >= self.size {
            return Next::Complete;
        }
        let Some(state) = self.sources.get(&source) else {
            return Next::NotASource;
        };
        if state.stalled || state.in_flight >= self.depth(state) {
            return Next::Wait;
        }
        self.open_window();
        let Some(index) = self.pick(source).or_else(|| self.pick_copy(source, now)) else {
            return Next::Wait;
        };
        self.issue(source, index, now)
    }

    /// More segments under way for a faster source, so that it never idles for a round trip; one for a slow source, so
    /// that it does not sit on bytes that others could bring sooner.
    fn depth(&self, source: &Source) -> u32 {
        let Some(rate) = source.bytes_per_second.get() else {
            return DEPTH_UNKNOWN;
        };
        let ahead = PIPELINE_AHEAD.as_secs_f64() * rate / self.config.segment_bytes as f64;
        // A float beyond the range becomes the nearest end of it.
        1 + (ahead as u32).min(DEPTH_MAX - 1)
    }

    /// Adds the pieces that end within the window. It spans two segments or more, so once the consumer has caught up
    /// there is always one.
    fn open_window(&mut self) {
        let limit = self.consumed.saturating_add(self.config.window_bytes);
        loop {
            let index = self.first + self.pieces.len() as u64;
            let (start, end) = (self.piece_start(index), self.piece_start(index + 1));
            if start >= self.size || end > limit {
                return;
            }
            self.pieces.push_back(Piece { end, verified: start, requests: SmallVec::new() });
        }
    }

    /// Requests for a piece that still count on it.
    fn active(&self, piece: &Piece) -> impl Iterator<Item = &Request<S>> {
        piece
            .requests
            .iter()
            .filter_map(|id| self.requests.get(id))
            .filter(|request| !request.released)
    }

    fn is_pending(&self, index: u64) -> bool {
        index
            .checked_sub(self.first)
            .and_then(|n| self.pieces.get(n as usize))
            .is_some_and(|piece| piece.verified < piece.end && self.active(piece).next().is_none())
    }

    /// A piece that nobody is fetching: what the consumer waits for, else the source's own run, else the first run that nobody
    /// works on, else the first.
    fn pick(&self, source: S) -> Option<u64> {
        if self.is_pending(self.first) {
            return Some(self.first);
        }
        let following = self.sources.get(&source)?.last_piece.map(|last| last + 1);
        if let Some(next) =
            following.filter(|next| next % RUN_SEGMENTS != 0 && self.is_pending(*next))
        {
            return Some(next);
        }
        let indices = self.first..self.first + self.pieces.len() as u64;
        let mut busy: SmallVec<[u64; 16]> = SmallVec::new();
        for request in self.requests.values().filter(|r| !r.released && r.source != source) {
            busy.push(request.piece / RUN_SEGMENTS);
        }
        let mut pending = indices.filter(|index| self.is_pending(*index));
        let first = pending.next()?;
        Some(
            std::iter::once(first)
                .chain(pending)
                .find(|index| !busy.contains(&(index / RUN_SEGMENTS)))
                .unwrap_or(first),
        )
    }

    /// A piece that somebody else is late with.
    fn pick_copy(&self, source: S, now: Now) -> Option<u64> {
        let last = self.size.div_ceil(self.config.segment_bytes);
        let gain = if last - self.first <= ENDGAME_SEGMENTS { 1.0 } else { COPY_GAIN };
        let asker = self.sources.get(&source)?.bytes_per_second.get().unwrap_or(THROUGHPUT_ASSUMED);
        let late = |piece: &Piece| {
            let others = self.active(piece).count();
            let mine = piece
                .requests
                .iter()
                .any(|id| self.requests.get(id).is_some_and(|r| r.source == source));
            let remaining = (piece.end - piece.verified) as f64;
            others > 0
                && others < COPIES_MAX
                && !mine
                && remaining > 0.0
                && self
                    .active(piece)
                    .all(|r| self.seconds_left(r, remaining, now) > gain * remaining / asker)
        };
        (self.first..).zip(&self.pieces).find(|(_, piece)| late(piece)).map(|(index, _)| index)
    }

    /// How long a request will need for the `remaining` bytes, by what it did so far. Zero while it is too young to tell.
    fn seconds_left(&self, request: &Request<S>, remaining: f64, now: Now) -> f64 {
        let elapsed = now.since(request.asked);
        if elapsed < self.config.hedge_after || elapsed == Duration::ZERO {
            return 0.0;
        }
        let arrived = request.upto - request.from;
        if arrived > 0 {
            return remaining * elapsed.as_secs_f64() / arrived as f64;
        }
        // Nothing yet: it may wait behind another request on a source that does deliver.
        let owner = self.sources.get(&request.source);
        let delivers = owner.filter(|owner| now.since(owner.progress_at) < self.config.hedge_after);
        match delivers.and_then(|owner| owner.bytes_per_second.get()) {
            Some(rate) if rate > 0.0 => remaining / rate,
            _ => f64::INFINITY,
        }
    }

    fn issue(&mut self, source: S, index: u64, now: Now) -> Next {
        let piece = index.checked_sub(self.first).and_then(|n| self.pieces.get_mut(n as usize));
        let (Some(piece), Some(state)) = (piece, self.sources.get_mut(&source)) else {
            return Next::Wait;
        };
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let from = piece.verified;
        piece.requests.push(id);
        let segment = Segment { id, offset: from, len: piece.end - from };
        if state.in_flight == 0 {
            state.progress_at = now;
        }
        state.in_flight += 1;
        state.last_piece = Some(index);
        self.requests.insert(
            id,
            Request { source, piece: index, from, upto: from, asked: now, released: false },
        );
        Next::Fetch(segment)
    }
}
