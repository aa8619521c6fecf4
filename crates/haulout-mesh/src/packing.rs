//! Compresses the pieces of a site object on their way to a peer, when that pays: the pieces of NARs that machines which fetch
//! the same give to each other, and files that their cache has not compressed.
//!
//! The rule is that of NAR ranges ([`narframe::worth_compressing`]): the link is the limit, there is a processor to spare, and
//! the last pieces did shrink.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use haulout_swarm::site::{SiteKey, SiteKind};

use crate::narframe::{self, Encoding, Frame, Pressure, Shrinkage};
use crate::registry::{Link, Shared};
use crate::siteframe::SiteRequest;

/// The pieces of one answer.
pub(crate) struct Packing {
    shared: Arc<Shared>,
    link: Arc<Link>,
    object: SiteKey,
    /// Where in the object the next piece is.
    at: u64,
    shrinkage: Shrinkage,
}

impl Packing {
    /// `None` for what is compressed already, and for peers that do not ask for it.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        link: &Arc<Link>,
        request: &SiteRequest,
    ) -> Option<Self> {
        let object = request.segment.object;
        let may_shrink = matches!(object.kind, SiteKind::Nar | SiteKind::UpstreamFile);
        let start = request.size?.range(request.segment.index).start;
        (may_shrink && request.packed).then(|| Self {
            shared: Arc::clone(shared),
            link: Arc::clone(link),
            object,
            at: start + request.from,
            shrinkage: Shrinkage::default(),
        })
    }

    /// The next piece, compressed; `None` if it goes as it is.
    pub(crate) async fn pack(&mut self, piece: &Bytes) -> Option<Bytes> {
        let at = self.at;
        self.at += piece.len() as u64;
        if let Some(frame) = self.shared.cache.get(&self.object.id, at, piece.len()) {
            return Some(frame.data);
        }
        let blocked = self.link.send_blocked();
        // The gauge is asked only when its answer matters.
        let idle_cores = if blocked { self.shared.gauge.idle_cores() } else { 0.0 };
        let pressure = Pressure { send_blocked: blocked, idle_cores };
        if !narframe::worth_compressing(pressure, self.shrinkage) {
            self.shrinkage.skipped();
            return None;
        }
        let raw = piece.clone();
        let packed = tokio::task::spawn_blocking(move || narframe::compress(&raw)).await;
        let packed = packed.ok().flatten();
        self.shrinkage.tried(packed.is_some());
        let data = packed?;
        let frame = Frame { encoding: Encoding::Zstd, data, raw_len: piece.len() };
        self.shared.cache.put(&self.object.id, at, &frame);
        Some(frame.data)
    }
}
