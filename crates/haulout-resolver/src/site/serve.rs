//! Giving segments to peers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use haulout_mesh::{Asker, SiteEnd, SitePiece, SiteRequest, SiteSource};
use haulout_swarm::PeerId;
use haulout_swarm::site::{SiteKind, Verdict};

use super::drive::For;
use super::segment::{Reader, Segment, SegmentReader};
use super::{Inner, Site, SiteObject, lock};

impl Site {
    /// What a peer gets that asks for a segment. Does not block, and must be polled on the mesh's runtime or any other.
    pub fn serve(&self, asker: &Asker, request: SiteRequest) -> Box<dyn SiteSource> {
        Box::new(Giving {
            inner: Arc::clone(&self.inner),
            asker: asker.clone(),
            request,
            stage: Stage::Asked,
        })
    }
}

enum Stage {
    Asked,
    Reading { reader: SegmentReader, _counted: Welcome },
    Over(SiteEnd),
}

/// A stream that counts among those under way, as long as it is.
struct Welcome {
    inner: Arc<Inner>,
    peer: PeerId,
}

impl Drop for Welcome {
    fn drop(&mut self) {
        lock(&self.inner.duty).done(&self.peer);
    }
}

struct Giving {
    inner: Arc<Inner>,
    asker: Asker,
    request: SiteRequest,
    stage: Stage,
}

impl SiteSource for Giving {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = SitePiece> + Send + '_>> {
        Box::pin(async {
            if matches!(self.stage, Stage::Asked) {
                self.stage = match self.begin().await {
                    Ok((reader, welcome)) => Stage::Reading { reader, _counted: welcome },
                    Err(end) => Stage::Over(end),
                };
            }
            match &mut self.stage {
                Stage::Asked => SitePiece::End(SiteEnd::Failed),
                Stage::Over(end) => SitePiece::End(*end),
                Stage::Reading { reader, .. } => {
                    let piece = reader.next().await;
                    if let SitePiece::Bytes(bytes) = &piece {
                        let stats = &self.inner.stats;
                        match self.request.segment.object.kind {
                            SiteKind::Nar => &stats.bytes_fellows_out,
                            _ => &stats.bytes_relayed_out,
                        }
                        .add(bytes.len() as u64);
                    }
                    piece
                }
            }
        })
    }
}

impl Giving {
    /// What there is of the segment. An agent that only wants what is kept here is sent on if it is not: following from one
    /// to the other could lead in a circle.
    fn known(&self, keeps: bool) -> Result<Option<Arc<Segment>>, SiteEnd> {
        let known = self.inner.known(&self.request.segment);
        let here = keeps || known.as_ref().is_some_and(|segment| segment.is_held());
        if self.request.held && !here { Err(SiteEnd::Refused) } else { Ok(known) }
    }

    async fn begin(&self) -> Result<(SegmentReader, Welcome), SiteEnd> {
        let (inner, peer) = (&self.inner, self.asker.peer);
        let object = SiteObject::of(&self.request);
        let outside = inner.outside(object.outside).ok_or(SiteEnd::Refused)?;
        let keeps = outside.keeps(&object);
        // A question for what is kept is never a reason to look anything up: most of them are about what is not here.
        self.known(keeps)?;
        // Otherwise it may be one, and that not on the mesh's thread.
        let allowed = outside.may_give(&object, self.asker.membership);
        if !inner.spawn(allowed).await.unwrap_or(false) {
            return Err(SiteEnd::Refused);
        }
        let known = self.known(keeps)?;
        if known.as_ref().is_some_and(|segment| segment.object != object) {
            return Err(SiteEnd::Refused);
        }
        let fresh = !known.as_ref().is_some_and(|segment| segment.is_alive());
        // What this machine keeps it gives whether it is willing to fetch or not.
        let to_fetch = fresh && !keeps;
        let verdict = lock(&inner.duty).ask(peer, to_fetch);
        match verdict {
            Verdict::Busy => return Err(SiteEnd::Busy),
            Verdict::Unwilling => return Err(SiteEnd::Refused),
            Verdict::Welcome => {}
        }
        let welcome = Welcome { inner: Arc::clone(inner), peer };
        if fresh && !inner.room().await {
            // Not "busy", which is waited for: whoever waits holds pieces himself, and all would wait for each other.
            return Err(SiteEnd::Failed);
        }
        let segment = inner.segment(&object, self.request.segment.index);
        let reader = segment.read(self.request.from, Reader::Peer(peer, self.request.urgency));
        segment.relied_on_by(peer);
        if fresh {
            inner.fill(&segment, For::Peer(peer));
        }
        Ok((reader, welcome))
    }
}
