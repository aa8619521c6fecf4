//! NARs that several machines fetch from the same holders at the same time: each piece is asked of a holder about once, and the
//! fetchers give it to each other while it arrives.
//!
//! It is the site's engine with the holders in the place of the outside. An agent whose Nix fetches from peers says so in its
//! standing, and those that say so are the homes of the pieces. Whoever is asked for a piece of a NAR that its own Nix did not
//! ask about refuses: nobody carries what he does not want himself.
//!
//! A home checks what a holder gives (by the hash tree that the holder promised, or by the hash of a small NAR) before it hands
//! it on, so an honest one never relays a lie. The follower checks again, because homes need not be honest.

use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use futures_util::{FutureExt, TryStreamExt};
use haulout_mesh::{Membership, NarKey};
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::site::{Cut, HOLDERS_ENOUGH, OutsideId, SiteKey, SiteKind};
use tokio::time::{Instant, sleep_until};

use super::{Body, Outside, OutsideError, Site, SiteObject, lock};
use crate::bounded::Bounded;
use crate::local::LocalStore;
use crate::lookup::weight;
use crate::transfer::{NarBytes, NarFellows, Shared, holders};
use crate::trust::Trust;

/// NARs up to this size are asked of a holder, whoever else fetches: another hop costs more than their bytes, of which a closure
/// has a hundredth in such NARs.
pub(crate) const FELLOWS_MIN: u64 = 64 << 10;
/// Larger ones are not looked at here: their trees would fill the memory for them.
const FELLOWS_SIZE_MAX: u64 = 4 << 30;
/// How long after the last question about a path an agent counts as one that fetches.
const FETCHING_FOR: Duration = Duration::from_secs(10);
/// What the infos of wanted paths may take, in bytes: of some eight thousand. Nix asks for all before the first NAR.
const WANTED_BYTES: usize = 8 << 20;
/// The name of this place, the same everywhere: SHA-256 of it.
const PLACE: &[u8] = b"haulout holders 1\0";

/// The place that agents name which fetch from holders.
pub(super) fn place() -> OutsideId {
    OutsideId::from_bytes(super::hash(&[PLACE]))
}

/// NARs of the site's holders, as a place to fetch from and as a source of transfers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LanNars {
    inner: Arc<Inner>,
}

struct Inner {
    site: Site,
    /// The transfers hold on to this.
    transfers: Weak<Shared>,
    local: Arc<LocalStore>,
    trust: Arc<ArcSwap<Trust>>,
    place: OutsideId,
    wanted: Bounded<HashPart, Arc<PathInfo>>,
    fetching_until: Mutex<Option<Instant>>,
}

impl LanNars {
    pub(crate) fn new(
        site: Site,
        transfers: Weak<Shared>,
        local: Arc<LocalStore>,
        trust: Arc<ArcSwap<Trust>>,
    ) -> Self {
        let inner = Inner {
            site,
            transfers,
            local,
            trust,
            place: place(),
            wanted: Bounded::new(WANTED_BYTES),
            fetching_until: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Nix asks about a path that others hold: it will probably want the NAR. Within a runtime.
    pub(crate) fn wanted(&self, info: &Arc<PathInfo>) {
        let inner = &self.inner;
        inner.wanted.put(info.path.hash_part(), Arc::clone(info), weight(info));
        let until = Instant::now() + FETCHING_FOR;
        if lock(&inner.fetching_until).replace(until).is_none() {
            inner.site.outsides_changed();
            tokio::spawn(lapse(Arc::downgrade(inner), until));
        }
    }

    /// The info of exactly this NAR, if Nix asked about it here.
    fn known(&self, path: &HashPart, key: impl Fn(&PathInfo) -> bool) -> Option<Arc<PathInfo>> {
        self.inner.wanted.get(path).filter(|info| key(info))
    }

    fn object(&self, key: NarKey) -> Option<SiteObject> {
        let id = super::hash(&[
            b"haulout nar 1\0",
            key.path.as_bytes(),
            key.nar_hash.as_bytes(),
            &key.nar_size.to_be_bytes(),
        ]);
        Some(SiteObject {
            key: SiteKey { kind: SiteKind::Nar, id },
            size: Some(Cut::of(SiteKind::Nar, key.nar_size)?),
            outside: self.inner.place,
            descriptor: Bytes::copy_from_slice(key.path.as_bytes()),
        })
    }

    /// The NAR a peer asks for, if it is one that is wanted here.
    fn asked(&self, object: &SiteObject) -> Option<(NarKey, Arc<PathInfo>)> {
        let path = HashPart::from_bytes(object.descriptor.as_ref().try_into().ok()?);
        let info = self.inner.wanted.get(&path)?;
        let key = NarKey { path, nar_hash: info.nar_hash, nar_size: info.nar_size };
        (self.object(key)? == *object).then_some((key, info))
    }

    async fn fetch_object(
        &self,
        object: SiteObject,
        range: Option<Range<u64>>,
    ) -> Result<Body, OutsideError> {
        let refused = || OutsideError::Refused("it is not wanted here".to_owned());
        let (key, _) = self.asked(&object).ok_or_else(refused)?;
        let range = range.ok_or_else(refused)?;
        let local = &self.inner.local;
        if local.contains(&key.path) || local.kept_info(&key.path).is_some() {
            let mut pieces = self.inner.local.read_range(key, range);
            let failed = |error: std::io::Error| OutsideError::Failed(error.to_string());
            return Ok(stream::poll_fn(move |cx| pieces.poll_recv(cx)).map_err(failed).boxed());
        }
        let transfers = self.inner.transfers.upgrade().ok_or_else(refused)?;
        let failed = |why: String| OutsideError::Failed(why);
        Ok(holders::range(transfers, key, range).await.map_err(failed)?.map_err(failed).boxed())
    }
}

/// Takes back that this agent fetches, when it has not for a while.
async fn lapse(lan: Weak<Inner>, mut until: Instant) {
    loop {
        sleep_until(until).await;
        let Some(lan) = lan.upgrade() else { return };
        {
            let mut fetching = lock(&lan.fetching_until);
            match *fetching {
                Some(later) if later > Instant::now() => {
                    until = later;
                    continue;
                }
                _ => *fetching = None,
            }
        }
        lan.site.outsides_changed();
        return;
    }
}

impl Outside for LanNars {
    fn ids(&self) -> Vec<OutsideId> {
        vec![self.inner.place]
    }

    fn announced(&self) -> Vec<OutsideId> {
        let fetching = lock(&self.inner.fetching_until).is_some();
        if fetching { self.ids() } else { Vec::new() }
    }

    fn fetch(
        &self,
        object: SiteObject,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'static, Result<Body, OutsideError>> {
        let lan = self.clone();
        async move { lan.fetch_object(object, range).await }.boxed()
    }

    /// As for what is in the store: strangers get what is public.
    fn may_give(&self, object: &SiteObject, to: Membership) -> BoxFuture<'static, bool> {
        let allowed = self.asked(object).is_some_and(|(_, info)| {
            let policy = self.inner.local.policy();
            policy.public(&self.inner.trust.load().store_dir, &info)
                || to == Membership::Member && policy.mesh_key.is_some()
        });
        async move { allowed }.boxed()
    }
}

impl NarFellows for LanNars {
    fn open(&self, key: NarKey, from: u64) -> Option<NarBytes> {
        let inner = &self.inner;
        if key.nar_size <= FELLOWS_MIN || key.nar_size > FELLOWS_SIZE_MAX {
            return None;
        }
        let right =
            |info: &PathInfo| info.nar_hash == key.nar_hash && info.nar_size == key.nar_size;
        self.known(&key.path, right)?;
        if inner.site.inner.peers().who_has(&key.path).len() >= HOLDERS_ENOUGH {
            return None;
        }
        let object = self.object(key)?;
        let me = inner.site.inner.peers().me();
        let first = object.size?.segment_of(from);
        inner.site.inner.ranking(&object, first).iter().find(|peer| **peer != me)?;
        let bytes = inner.site.stream(object, from);
        Some(bytes.map_err(|error| error.to_string()).boxed())
    }

    fn wrong(&self, key: NarKey, offset: u64) {
        let Some(object) = self.object(key) else { return };
        let site = &self.inner.site.inner;
        let Some(index) = object.size.map(|cut| cut.segment_of(offset)) else { return };
        let Some(segment) = site.known(&object.key.segment(index)) else { return };
        for peer in segment.peers() {
            tracing::debug!(peer = %peer.short(), ?object.key, "its bytes do not fit the tree");
            lock(&site.fellows).wrong(&object.key, &peer);
        }
        site.drop_failed(&segment);
    }

    fn confirmed(&self, key: NarKey) {
        let Some(object) = self.object(key) else { return };
        self.inner.site.inner.blame_fellows(&object.key);
    }
}
