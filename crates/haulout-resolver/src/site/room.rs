//! Room for segments: what is let go of when there is no more, and what goes to the disk instead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haulout_cache::Spill;
use haulout_swarm::site::{Piece, SEGMENT_BYTES, SegmentKey, Worth, victims};
use tokio::time::{Instant, sleep};

use super::segment::{Held, Segment};
use super::{Inner, SEGMENTS_MAX, lock};

/// Bytes on their way to the disk, at most: they are still in memory. Beyond it the disk is slower than the line, and what
/// would have to wait for it is let go of.
const LEAVING_MAX: u64 = 8 * SEGMENT_BYTES;
/// How long a peer waits here for room, at most: half of its patience.
const ROOM_WAIT: Duration = Duration::from_secs(4);
/// How often it is looked for.
const ROOM_LOOK: Duration = Duration::from_millis(50);
/// Smaller pieces are not worth a place on the disk.
const SPILL_MIN: u64 = 16 << 10;

/// Where a segment may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory,
    Disk,
}

impl Inner {
    /// Makes room until what is kept fits into memory. False if it does not even so.
    pub(super) fn fits(self: &Arc<Self>) -> bool {
        self.make_room(SEGMENTS_MAX)
    }

    /// Room for one more segment, waited for: a peer that is refused asks the next, which would fetch from outside what is
    /// about to be fetched here for others. Meanwhile it is told that this agent is alive. False: there is none for long.
    pub(super) async fn room(self: &Arc<Self>) -> bool {
        let begun = Instant::now();
        loop {
            if self.fits() {
                return true;
            }
            if begun.elapsed() >= ROOM_WAIT {
                return false;
            }
            sleep(ROOM_LOOK).await;
        }
    }

    /// Whether there is room to fetch further ahead for this machine: what is under way counts whole here. A home does not
    /// count so: refusing a piece to peers costs the line outside, and pieces on a slow line are mostly empty.
    pub(super) fn fits_ahead(self: &Arc<Self>) -> bool {
        let coming: u64 = lock(&self.segments)
            .values()
            .filter(|segment| segment.idle_since().is_none())
            .map(|segment| segment.bytes_coming())
            .sum();
        coming <= self.memory && self.fits()
    }

    /// The same for at most `count` segments.
    pub(super) fn make_room(self: &Arc<Self>, count: usize) -> bool {
        let (held, kept) = self.held();
        if held.in_memory <= self.memory && kept <= count {
            return true;
        }
        let needed = held.in_memory.saturating_sub(self.memory);
        // A quarter at a time.
        let wanted = if needed > 0 { held.in_memory - self.memory * 3 / 4 } else { 0 };
        let idle = self.idle(Place::Memory);
        let pieces = victims(idle, needed, wanted, kept.saturating_sub(count));
        let mut room = LEAVING_MAX.saturating_sub(held.leaving);
        let mut leaving = Vec::new();
        let mut gone = Vec::new();
        let mut segments = lock(&self.segments);
        for piece in pieces {
            let spills = self.spill.get().is_some()
                && kept <= count
                && piece.worth == Worth::Owed
                && (SPILL_MIN..=room).contains(&piece.bytes);
            let chunks = segments.get(&piece.key).filter(|_| spills);
            match chunks.and_then(|segment| Some((Arc::clone(segment), segment.leave()?))) {
                Some(one) => {
                    room -= piece.bytes;
                    leaving.push(one);
                }
                None => gone.extend(remove_idle(&mut segments, &piece.key)),
            }
        }
        drop(segments);
        drop(gone);
        if let Some(spill) = self.spill.get().filter(|_| !leaving.is_empty()) {
            let (inner, spill) = (Arc::clone(self), spill.clone());
            self.spawn_blocking(move || {
                for (segment, chunks) in leaving {
                    inner.spill(&spill, &segment, &chunks);
                }
            });
        }
        let (held, kept) = self.held();
        held.in_memory <= self.memory && kept <= count
    }

    /// Writes a segment to the disk; without room for it there, it is let go of. Blocks.
    fn spill(&self, spill: &Spill, segment: &Arc<Segment>, chunks: &[Bytes]) {
        let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let excess = (spill.bytes() + bytes).saturating_sub(spill.quota());
        if excess > 0 {
            let oldest = victims(self.idle(Place::Disk), excess, excess, 0);
            let mut segments = lock(&self.segments);
            let gone: Vec<_> =
                oldest.iter().filter_map(|one| remove_idle(&mut segments, &one.key)).collect();
            drop(segments);
            // Their room is free when the last of them is dropped.
            drop(gone);
        }
        match spill.put(chunks.iter().map(|chunk| &chunk[..])) {
            Ok(Some(piece)) => return segment.left(piece),
            Ok(None) => tracing::debug!(bytes, "no room on the disk for a piece"),
            Err(error) => tracing::warn!(%error, "a piece for others could not be written"),
        }
        self.drop_failed(segment);
    }

    /// Bytes of all segments, and their number.
    pub(super) fn held(&self) -> (Held, usize) {
        let segments = lock(&self.segments);
        (segments.values().map(|segment| segment.bytes()).sum(), segments.len())
    }

    /// What is in a place and nobody reads or fills.
    fn idle(&self, place: Place) -> Vec<Piece<SegmentKey, Instant>> {
        let idle: Vec<_> = lock(&self.segments)
            .iter()
            .filter_map(|(key, segment)| {
                let (held, since) = (segment.bytes(), segment.idle_since()?);
                let bytes = match place {
                    _ if held.leaving > 0 => return None,
                    Place::Memory if held.on_disk == 0 => held.in_memory,
                    Place::Disk if held.on_disk > 0 => held.on_disk,
                    _ => return None,
                };
                Some((*key, Arc::clone(segment), since, bytes))
            })
            .collect();
        // Not under the lock: the mesh is asked who is there, once for each place outside. Who fetches for nobody wants what a
        // home has as much as others do.
        let mut others: HashMap<u32, usize> = HashMap::new();
        let peers = self.peers();
        idle.into_iter()
            .map(|(key, segment, touched, bytes)| {
                let place = segment.object.outside.tag();
                let others = others.entry(place).or_insert_with(|| peers.others(place));
                Piece { key, worth: segment.worth(*others), touched, bytes }
            })
            .collect()
    }
}

/// Takes a segment out, unless somebody uses it by now.
fn remove_idle(
    segments: &mut HashMap<SegmentKey, Arc<Segment>>,
    key: &SegmentKey,
) -> Option<Arc<Segment>> {
    segments.get(key)?.idle_since()?;
    segments.remove(key)
}
