//! Filling one segment: runs its [`Follow`] against the mesh and the outside.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_mesh::{SiteEnd, SiteFrame, SiteRequest};
use haulout_swarm::site::{
    Attempt, DOCUMENT_MAX, End, Follow, FollowConfig, Origin, SiteKind, Step, Why,
};
use haulout_swarm::{Fault, PeerId};
use tokio::time::{Instant, sleep_until};

use super::segment::Segment;
use super::{Inner, OutsideError, SiteObject, held_as};
use crate::peers::PeerError;

/// How long a segment that nobody reads any more is still filled: a follower that lost us comes back, Nix asks again.
const LINGER: Duration = Duration::from_secs(3);

/// Bytes to come for which a peer is told that somebody waits now: less is here as soon as that is said.
const URGE_MIN: u64 = 256 << 10;

enum Event {
    Waiting,
    Bytes(Bytes),
    End(End),
}

/// Why this agent is outside for a segment.
#[derive(Clone, Copy, Debug)]
struct Going {
    why: Why,
    /// It was there for the same one before.
    again: bool,
}

/// For whom a segment is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// This machine wants it: its home is asked first.
    Ourselves,
    /// This machine takes it if a home has it, and else has the same from elsewhere.
    IfKept,
    /// This peer asked: it is fetched from outside, unless somebody has it from before this agent came.
    Peer(PeerId),
}

impl Inner {
    /// Sees to it that the segment is being filled. False if that is so already, or it is over.
    pub(super) fn fill(self: &Arc<Self>, segment: &Arc<Segment>, whom: For) -> bool {
        let Some(have) = segment.take_over() else { return false };
        let (object, index) = (&segment.object, segment.index);
        let len = object.segment_len(index);
        let (me, config) = (self.peers().me(), config(object.key.kind));
        let plan = match whom {
            For::Peer(asker) => Follow::home(me, asker, len, have, config),
            For::Ourselves => Follow::new(me, len, have, config),
            For::IfKept => Follow::kept(me, len, have, config),
        };
        let on_duty = matches!(whom, For::Peer(_));
        if on_duty {
            super::lock(&self.duty).fetching();
        }
        let (inner, segment) = (Arc::clone(self), Arc::clone(segment));
        self.spawn(async move {
            let end = match inner.take_kept(&segment).await {
                true => Some(SiteEnd::Complete),
                false => inner.drive(&segment, plan, whom).await,
            };
            if end.is_some_and(|end| end != SiteEnd::Complete) {
                inner.drop_failed(&segment);
            }
            segment.released(end);
            if on_duty {
                super::lock(&inner.duty).fetched();
            }
            inner.fits();
        });
        true
    }

    /// Fills a segment from what this machine keeps; false: it has to come from elsewhere.
    async fn take_kept(&self, segment: &Segment) -> bool {
        let object = &segment.object;
        let outside = self.outside(object.outside).filter(|outside| outside.keeps(object));
        let Some(outside) = outside else { return false };
        let Some(whole) = outside.kept(object.clone()).await else { return false };
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let part = match object.size {
            None => whole,
            Some(cut) if cut.size() == whole.len() as u64 => {
                let range = cut.range(segment.index);
                whole.slice(at(range.start)..at(range.end))
            }
            Some(_) => return false,
        };
        segment.put_kept(part);
        true
    }

    /// If others keep such objects and nobody known keeps this one, asks who does.
    async fn locate(&self, object: &SiteObject) {
        let kept = matches!(object.key.kind, SiteKind::Sliver | SiteKind::BlobMetadata);
        let id = held_as(&object.key.id);
        if kept
            && self.peers().who_has(&id).is_empty()
            && let Some(locate) = self.peers().locate(&id)
        {
            locate.await;
        }
    }

    /// Runs the plan to its end; `None`: nobody wants it now.
    async fn drive(&self, segment: &Segment, mut plan: Follow, whom: For) -> Option<SiteEnd> {
        let len = segment.object.segment_len(segment.index);
        let document = len.is_none();
        self.locate(&segment.object).await;
        let mut current: Option<(Attempt, Origin, u64, BoxStream<'static, Event>)> = None;
        let mut going = Going { why: Why::Turn, again: false };
        let mut idle_since: Option<Instant> = None;
        let mut refused = false;
        let mut sent: Option<SiteRequest> = None;
        loop {
            let moved = segment.moved();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let demand = segment.demand();
            // Who relies on it makes a home of this agent: of one that fetches for others.
            if whom != For::IfKept || super::lock(&self.duty).is_willing() {
                demand.relying.iter().for_each(|peer| plan.relied_on_by(peer));
            }
            match demand.readers {
                0 => {
                    let since = *idle_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LINGER {
                        return None;
                    }
                }
                _ => idle_since = None,
            }
            match plan.next(self.now(), || self.turns(&segment.object, segment.index)) {
                Step::Fetch { attempt, origin, held, from } => {
                    if document {
                        segment.clear();
                    }
                    if origin == Origin::Outside {
                        going = self.going(segment, plan.why());
                        tracing::debug!(object = ?segment.object.key, index = segment.index, from, ?going, "goes outside");
                    }
                    segment.comes_from_outside(origin == Origin::Outside);
                    let request = SiteRequest {
                        held,
                        ..segment.object.request(segment.index, from, demand.urgency)
                    };
                    sent = Some(request.clone());
                    let events = self.open(&segment.object, request, origin);
                    current = Some((attempt, origin, from, events));
                }
                Step::Wait => {
                    if let (Some(sent), Some((_, origin @ Origin::Peer(_), at, events))) =
                        (&mut sent, &mut current)
                        && demand.urgency < sent.urgency
                        && len.is_some_and(|len| len.saturating_sub(*at) >= URGE_MIN)
                    {
                        // It was fetched ahead, and now somebody waits for it: the peer is told so. No byte comes twice.
                        (sent.urgency, sent.from) = (demand.urgency, *at);
                        *events = self.open(&segment.object, sent.clone(), *origin);
                    }
                }
                Step::Complete => return Some(SiteEnd::Complete),
                Step::Absent => return Some(SiteEnd::Absent),
                Step::Failed if refused => return Some(SiteEnd::Refused),
                Step::Failed => return Some(SiteEnd::Failed),
            }
            let wake = plan.wake_at().map(|at| self.begun + at.since_start());
            let linger = idle_since.map(|since| since + LINGER);
            let wake = wake.into_iter().chain(linger).min();
            let event = async {
                match &mut current {
                    Some((.., events)) => events.next().await.unwrap_or(Event::End(End::Cut)),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = event => {
                    let Some((attempt, origin, at, _)) = &mut current else { continue };
                    match event {
                        Event::Waiting => plan.waiting(*attempt, self.now()),
                        Event::Bytes(bytes) => {
                            let length = bytes.len() as u64;
                            if document && *at + length > DOCUMENT_MAX {
                                plan.ended(*attempt, End::Wrong);
                                current = None;
                                continue;
                            }
                            self.count(segment.object.key.kind, *origin, going, length);
                            let have = segment.put(*at, bytes, *origin);
                            *at += length;
                            plan.progress(*attempt, have, self.now());
                            let limit = match (*origin, segment.object.key.kind) {
                                (Origin::Peer(_), _) => Some(&*self.from_peers),
                                // What holders give is limited where it is asked for.
                                (Origin::Outside, SiteKind::Nar) => None,
                                (Origin::Outside, _) => Some(&self.download),
                            };
                            if let Some(limit) = limit {
                                limit.took(length, demand.urgency).await;
                                // Waiting here is not the source's fault.
                                plan.waiting(*attempt, self.now());
                            }
                        }
                        Event::End(end) => {
                            tracing::debug!(object = ?segment.object.key, index = segment.index, ?origin, ?end, "ended");
                            refused |= *origin == Origin::Outside && end == End::Refused;
                            self.judge(&segment.object, *origin, end);
                            plan.ended(*attempt, end);
                            current = None;
                        }
                    }
                }
                () = moved => {}
                () = async {
                    match wake {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// What a way outside is counted as.
    fn going(&self, segment: &Segment, why: Why) -> Going {
        let again = super::lock(&self.fetched).put(segment.key(), ()).is_some();
        Going { why, again }
    }

    fn count(&self, kind: SiteKind, origin: Origin, going: Going, bytes: u64) {
        match (kind, origin) {
            (SiteKind::Nar, Origin::Peer(_)) => {
                self.stats.bytes_in.add(bytes);
                self.stats.bytes_fellows_in.add(bytes);
            }
            // What holders give is counted where it is asked for.
            (SiteKind::Nar, Origin::Outside) => {}
            (_, Origin::Peer(_)) => self.stats.bytes_relayed_in.add(bytes),
            (_, Origin::Outside) => {
                self.stats.bytes_outside.add(bytes);
                self.stats.outside_because(going.why).add(bytes);
                if going.again {
                    self.stats.bytes_outside_again.add(bytes);
                }
            }
        }
    }

    fn judge(&self, object: &SiteObject, origin: Origin, end: End) {
        let Origin::Peer(peer) = origin else { return };
        if end == End::Wrong {
            self.peers().blame(peer, Fault::ProtocolViolation);
        }
        if object.key.kind == SiteKind::Nar {
            let now = self.now();
            let mut fellows = super::lock(&self.fellows);
            match end {
                End::Complete => fellows.served(&peer),
                End::Refused => fellows.refused(&object.key, &peer, now),
                _ => {}
            }
        }
    }

    /// Begins an attempt.
    fn open(
        &self,
        object: &SiteObject,
        request: SiteRequest,
        origin: Origin,
    ) -> BoxStream<'static, Event> {
        match origin {
            Origin::Peer(peer) => self
                .peers()
                .site(peer, request)
                .map(|frame| match frame {
                    Ok(SiteFrame::Waiting) => Event::Waiting,
                    Ok(SiteFrame::Bytes(bytes)) => Event::Bytes(bytes),
                    Ok(SiteFrame::End(end)) => Event::End(ended(end)),
                    Err(PeerError::Protocol) => Event::End(End::Wrong),
                    Err(PeerError::Busy) => Event::End(End::Busy),
                    Err(PeerError::No) => Event::End(End::Refused),
                    Err(PeerError::Lost | PeerError::Silent) => Event::End(End::Cut),
                })
                .boxed(),
            Origin::Outside => self.open_outside(object, request.segment.index, request.from),
        }
    }

    fn open_outside(
        &self,
        object: &SiteObject,
        index: u32,
        from: u64,
    ) -> BoxStream<'static, Event> {
        let Some(outside) = self.outside(object.outside) else {
            return stream::once(async { Event::End(End::Refused) }).boxed();
        };
        if object.key.kind != SiteKind::Nar {
            self.stats.outside_fetches.one();
        }
        let range = object.size.map(|cut| {
            let range = cut.range(index);
            range.start + from..range.end
        });
        let expected = range.as_ref().map(|range| range.end - range.start);
        let object = object.clone();
        let body = async move {
            match outside.fetch(object, range).await {
                Ok(body) => body,
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        let mut left = expected;
        stream::once(body)
            .flatten()
            .map(move |piece| match piece {
                Ok(mut bytes) => {
                    if let Some(left) = &mut left {
                        // Not a byte more than was asked for.
                        bytes.truncate(
                            usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len()),
                        );
                        *left -= bytes.len() as u64;
                    }
                    Event::Bytes(bytes)
                }
                Err(error) => {
                    tracing::debug!(%error, "outside");
                    Event::End(match error {
                        OutsideError::Absent => End::Absent,
                        OutsideError::Refused(_) => End::Refused,
                        OutsideError::Failed(_) => End::OutsideFailed,
                    })
                }
            })
            .chain(stream::once(async { Event::End(End::Complete) }))
            .boxed()
    }
}

/// The clocks for such an object. NARs that others hold cost nothing outside: whoever waits for nothing takes them from there.
fn config(kind: SiteKind) -> FollowConfig {
    match kind {
        SiteKind::Nar => {
            FollowConfig { elect: false, busy_for: Duration::ZERO, ..FollowConfig::default() }
        }
        _ => FollowConfig::default(),
    }
}

fn ended(end: SiteEnd) -> End {
    match end {
        SiteEnd::Complete => End::Complete,
        SiteEnd::Absent => End::Absent,
        SiteEnd::Refused => End::Refused,
        SiteEnd::Busy => End::Busy,
        SiteEnd::Failed => End::OutsideFailed,
    }
}
