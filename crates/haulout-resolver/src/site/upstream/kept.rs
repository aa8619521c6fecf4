//! NARs that peers hold, put together from the pieces of their file that homes still keep.
//!
//! While a site updates itself, the first machine that has a path announces it, and everybody would take it from this one. The
//! homes of the file's pieces have them still, compressed, and no two the same.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use haulout_mesh::NarKey;
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::site::few_hold;
use haulout_upstream::Trouble;
use tokio::time::timeout;

use super::{NARINFO_BUDGET, Upstream, unpack};
use crate::site::nars;
use crate::transfer::NarBytes;

/// Homes asked at the same time for narinfos of paths that peers hold: a round trip each. What comes beyond is left out.
pub(super) const ASKING_MAX: usize = 64;
/// NARs up to this size are asked of a holder: its answer is one round trip, as that of a home would be.
const KEPT_MIN: u64 = 64 << 10;

impl Upstream {
    /// Whether few enough hold a NAR that the pieces of its file are worth asking for. A file that is being read here, or was
    /// fetched ahead, is used anyway.
    fn is_worth_it(&self, path: &HashPart, nar_size: u64) -> bool {
        let site = &self.inner.site;
        nar_size > KEPT_MIN && few_hold(site.holders_of(path), site.others(nars::place()))
    }

    /// Peers hold this path, and Nix will probably want it: finds out which file it is outside, if a home still knows, in case
    /// the homes of its pieces keep that. Within a runtime.
    pub(crate) fn wanted(&self, info: &PathInfo) {
        let (path, inner) = (info.path.hash_part(), &self.inner);
        if inner.each.is_empty()
            || inner.known.get(&path).is_some()
            || !self.is_worth_it(&path, info.nar_size)
        {
            return;
        }
        let Ok(asking) = Arc::clone(&inner.asking).try_acquire_owned() else { return };
        let upstream = self.clone();
        tokio::spawn(async move {
            let object = upstream.narinfo_object(path);
            let document = upstream.inner.site.document_kept(&object);
            if let Ok(Ok(text)) = timeout(NARINFO_BUDGET, document).await
                && upstream.read(path, &text).is_none()
            {
                upstream.inner.site.forget(&object);
            }
            drop(asking);
        });
    }

    pub(super) fn open_kept(&self, key: NarKey) -> Option<NarBytes> {
        let known = self.inner.known.get(&key.path).filter(|known| known.is(&key))?;
        let object = known.object.as_ref()?;
        if !self.inner.site.is_here(object) && !self.is_worth_it(&key.path, key.nar_size) {
            return None;
        }
        let bytes = self.inner.site.stream_kept(object.clone());
        let bytes = bytes.map_err(|error| Trouble::Broken(error.to_string())).boxed();
        unpack(&known.found, &key, bytes)
    }
}
