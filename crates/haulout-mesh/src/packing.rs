//! Compresses the pieces of a site object on their way to a peer, when that pays: the pieces of NARs that machines which fetch
//! the same give to each other, and files that their cache has not compressed.
//!
//! The rule is that of NAR ranges ([`narframe::worth_compressing`]): the link is the limit, there is a processor to spare, and
//! the last pieces did shrink.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use haulout_swarm::site::SiteKind;

use crate::narframe::{self, Encoding, Frame, FrameCache, Pressure, Shrinkage};
use crate::registry::{Link, Shared};
use crate::siteframe::SiteRequest;

/// The pieces of one answer.
pub(crate) struct Packing {
    shared: Arc<Shared>,
    link: Arc<Link>,
    shrinkage: Shrinkage,
}

impl Packing {
    /// `None` for what is compressed already, and for peers that do not ask for it.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        link: &Arc<Link>,
        request: &SiteRequest,
    ) -> Option<Self> {
        let kind = request.segment.object.kind;
        let may_shrink = matches!(kind, SiteKind::Nar | SiteKind::UpstreamFile);
        (may_shrink && request.packed).then(|| Self {
            shared: Arc::clone(shared),
            link: Arc::clone(link),
            shrinkage: Shrinkage::default(),
        })
    }

    /// The next piece, compressed; `None` if it goes as it is.
    pub(crate) async fn pack(&mut self, piece: &Bytes) -> Option<Bytes> {
        let blocked = self.link.send_blocked();
        // The gauge is asked only when its answer matters.
        let idle_cores = if blocked { self.shared.gauge.idle_cores() } else { 0.0 };
        let pressure = Pressure { send_blocked: blocked, idle_cores };
        if !narframe::worth_compressing(pressure, self.shrinkage) {
            self.shrinkage.skipped();
            return None;
        }
        let (shared, raw) = (Arc::clone(&self.shared), piece.clone());
        let packed = tokio::task::spawn_blocking(move || pack(&shared.cache, &raw)).await;
        let packed = packed.ok().flatten();
        self.shrinkage.tried(packed.is_some());
        packed
    }
}

/// Compresses a piece, or takes what the same bytes were compressed to for somebody else. They go by their hash and not by the
/// object's name: what a peer gave for it may have been wrong, and is something else the next time.
fn pack(cache: &FrameCache, raw: &[u8]) -> Option<Bytes> {
    let hash = blake3::hash(raw);
    if let Some(frame) = cache.get(hash.as_bytes(), 0, raw.len()) {
        return Some(frame.data);
    }
    let data = narframe::compress(raw)?;
    let frame = Frame { encoding: Encoding::Zstd, data, raw_len: raw.len() };
    cache.put(hash.as_bytes(), 0, &frame);
    Some(frame.data)
}
