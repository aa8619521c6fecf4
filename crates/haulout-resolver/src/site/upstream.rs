//! Binary caches as a place outside: narinfos and files of upstreams, fetched once for the site.
//!
//! A narinfo is a document: what the home's caches say, all of them together. Whoever gets it from a peer verifies it like any
//! other. A file is cut into segments; the request for one names the path and nothing else, and the home reads the file's
//! name from a narinfo that it has verified itself. So a peer cannot make it fetch anything but files of signed paths from
//! the caches it is configured with.

mod kept;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use haulout_mesh::{Membership, NarKey};
use haulout_nix::{HashPart, NarInfo, PathInfo};
use haulout_swarm::site::{Cut, OutsideId, SiteKey, SiteKind};
use haulout_upstream::{Answer as Said, Found, Kind, Trouble, Upstreams, decompress};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Body, Outside, OutsideError, Site, SiteError, SiteObject};
use crate::bounded::Bounded;
use crate::local::SharePolicy;
use crate::peers::Answer;
use crate::reasons::Reasons;
use crate::stats::Stats;
use crate::transfer::{NarBytes, NarOutside};
use crate::trust::Trust;

/// The longest a question about a path waits for the outside. Nix has nothing better to do: its next substituter is the same
/// cache. One that is down is known to be and costs nothing.
pub(crate) const NARINFO_BUDGET: Duration = Duration::from_secs(4);
/// What a home grants the caches when a peer asks: within the peer's own budget.
const HOME_BUDGET: Duration = Duration::from_secs(3);
/// What remembered narinfos may take, in bytes: of some ten thousand paths.
const KNOWN_BYTES: usize = 12 << 20;

/// A path that an upstream has.
#[derive(Debug)]
struct Known {
    found: Arc<Found>,
    /// Where its NAR's file is, as an object of the site; `None` for one that is fetched without the site: it has no size,
    /// or its cache is this machine's alone.
    object: Option<SiteObject>,
}

/// The caches of this machine, as a place outside and as a source of NARs.
#[derive(Clone)]
pub(crate) struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    upstreams: Upstreams,
    site: Site,
    trust: Arc<ArcSwap<Trust>>,
    policy: Box<dyn Fn() -> Arc<SharePolicy> + Send + Sync>,
    known: Bounded<HashPart, Arc<Known>>,
    /// All caches together: where narinfos come from.
    all: OutsideId,
    each: Vec<OutsideId>,
    stats: Arc<Stats>,
    reasons: Arc<Reasons>,
    wrong: Mutex<lru::LruCache<HashPart, ()>>,
    /// Questions about what is kept.
    asking: Arc<Semaphore>,
}

impl Upstream {
    /// Every cache, for reports.
    pub(crate) fn status(&self) -> Vec<haulout_upstream::UpstreamStatus> {
        self.inner.upstreams.status()
    }
}

fn outside_of(url: &str) -> OutsideId {
    OutsideId::from_bytes(super::hash(&[b"haulout upstream 1\0", url.as_bytes()]))
}

impl Upstream {
    pub(crate) fn new(
        upstreams: Upstreams,
        site: Site,
        trust: Arc<ArcSwap<Trust>>,
        policy: impl Fn() -> Arc<SharePolicy> + Send + Sync + 'static,
        stats: Arc<Stats>,
        reasons: Arc<Reasons>,
    ) -> Self {
        let mut urls: Vec<String> = upstreams
            .status()
            .into_iter()
            .filter(|one| matches!(one.kind, Kind::Http | Kind::S3))
            .map(|one| one.url)
            .collect();
        urls.sort();
        let each: Vec<OutsideId> = urls.iter().map(|url| outside_of(url)).collect();
        let all: Vec<&[u8]> = std::iter::once(&b"haulout upstreams 1\0"[..])
            .chain(urls.iter().flat_map(|url| [url.as_bytes(), &b"\0"[..]]))
            .collect();
        let all = OutsideId::from_bytes(super::hash(&all));
        let inner = Inner {
            upstreams,
            site,
            trust,
            policy: Box::new(policy),
            known: Bounded::new(KNOWN_BYTES),
            all,
            each,
            stats,
            reasons,
            wrong: Mutex::new(lru::LruCache::new(WRONG_MAX)),
            asking: Arc::new(Semaphore::new(kept::ASKING_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The verified info of a path that an upstream has.
    pub(crate) async fn path_info(&self, path: HashPart) -> Option<Arc<PathInfo>> {
        let known = timeout(NARINFO_BUDGET, self.known(path)).await.ok().flatten()?;
        self.inner.stats.info_outside.one();
        Some(Arc::new(known.found.narinfo.info.clone()))
    }

    /// Looks a path up before anybody asks; whether it is known then.
    pub(super) async fn look_ahead(&self, path: HashPart) -> bool {
        timeout(NARINFO_BUDGET, self.known(path)).await.ok().flatten().is_some()
    }

    /// The file of a known path, as an object of the site.
    pub(super) fn object(&self, path: &HashPart) -> Option<SiteObject> {
        self.inner.known.get(path)?.object.clone()
    }

    /// What a known path refers to, but for itself.
    pub(super) fn references(&self, path: &HashPart) -> Vec<HashPart> {
        let Some(known) = self.inner.known.get(path) else { return Vec::new() };
        let references = known.found.narinfo.info.references.iter();
        references.map(|reference| reference.hash_part()).filter(|other| other != path).collect()
    }

    /// NAR bytes that this machine's Nix was given, from anywhere.
    pub(super) fn bytes_taken(&self) -> u64 {
        self.inner.stats.bytes_delivered.get()
    }

    /// Whether one of the caches is another agent, or this one.
    pub(crate) fn asks_agents(&self) -> bool {
        self.inner.upstreams.asks_agents()
    }

    /// The engine.
    pub(super) fn site(&self) -> &Site {
        &self.inner.site
    }

    /// Forgets what was verified with other keys.
    pub(crate) fn forget_all(&self) {
        self.inner.known.clear();
        self.inner.upstreams.forget_all();
    }

    fn narinfo_object(&self, path: HashPart) -> SiteObject {
        let inner = &self.inner;
        SiteObject {
            key: SiteKey {
                kind: SiteKind::UpstreamNarinfo,
                id: super::hash(&[b"haulout narinfo 1\0", inner.all.as_bytes(), path.as_bytes()]),
            },
            size: None,
            outside: inner.all,
            descriptor: Bytes::copy_from_slice(path.as_bytes()),
        }
    }

    /// What is known of a path: from memory, from what the caches said to this agent, from the path's home.
    async fn known(&self, path: HashPart) -> Option<Arc<Known>> {
        let inner = &self.inner;
        if let Some(known) = inner.known.get(&path) {
            return Some(known);
        }
        match inner.upstreams.remembered(&path) {
            Some(Said::Found(found)) => return Some(self.learn(path, found)),
            Some(Said::Absent) => return None,
            Some(Said::Unknown(_)) | None => {}
        }
        let lied = inner.wrong.lock().unwrap_or_else(PoisonError::into_inner).contains(&path);
        if !lied && !inner.each.is_empty() {
            let object = self.narinfo_object(path);
            match inner.site.document(object.clone()).await {
                Ok(text) => match self.read(path, &text) {
                    Some(known) => return Some(known),
                    // The home made it up, or believes in other keys than we do.
                    None => inner.site.forget(&object),
                },
                Err(SiteError::Absent) if self.only_shared() => return None,
                Err(_) => {}
            }
        }
        self.ask(path, NARINFO_BUDGET).await
    }

    /// Whether every cache is one that peers may have, too: then their answer is ours.
    fn only_shared(&self) -> bool {
        let status = self.inner.upstreams.status();
        status.iter().all(|one| matches!(one.kind, Kind::Http | Kind::S3))
    }

    /// Asks the caches, not the site.
    async fn ask(&self, path: HashPart, budget: Duration) -> Option<Arc<Known>> {
        match self.inner.upstreams.narinfo(path, budget).await {
            Said::Found(found) => Some(self.learn(path, found)),
            Said::Absent => None,
            Said::Unknown(trouble) => {
                self.inner.reasons.note(&path, format!("the caches outside: {trouble}"));
                None
            }
        }
    }

    /// Reads a document of [`SiteKind::UpstreamNarinfo`].
    fn read(&self, path: HashPart, document: &[u8]) -> Option<Arc<Known>> {
        let inner = &self.inner;
        let (url, text) = split(document)?;
        let trust = inner.trust.load();
        let narinfo = NarInfo::parse(text, &trust.store_dir).ok()?;
        if narinfo.info.path.hash_part() != path || trust.judge(&narinfo.info).is_err() {
            return None;
        }
        let file = inner.upstreams.locate(url, &narinfo)?;
        Some(self.learn(path, Arc::new(Found { narinfo, file })))
    }

    fn learn(&self, path: HashPart, found: Arc<Found>) -> Arc<Known> {
        let known = Arc::new(Known { object: self.file_object(path, &found), found });
        let weight = crate::lookup::weight(&known.found.narinfo.info) + size_of::<Known>() + 512;
        self.inner.known.put(path, Arc::clone(&known), weight);
        known
    }

    fn file_object(&self, path: HashPart, found: &Found) -> Option<SiteObject> {
        let outside = outside_of(found.file.upstream.as_str());
        let size = found.file.stated_size.filter(|size| *size <= found.file.size_max)?;
        if !self.inner.each.contains(&outside) {
            return None;
        }
        let parts: [&[u8]; 6] = [
            b"haulout file 1\0",
            outside.as_bytes(),
            path.as_bytes(),
            found.narinfo.info.nar_hash.as_bytes(),
            &size.to_be_bytes(),
            found.file.key.as_bytes(),
        ];
        Some(SiteObject {
            key: SiteKey { kind: SiteKind::UpstreamFile, id: super::hash(&parts) },
            size: Some(Cut::new(size)?),
            outside,
            descriptor: Bytes::copy_from_slice(path.as_bytes()),
        })
    }

    /// What a home must know for a peer's request, found out by itself.
    async fn known_for(&self, object: &SiteObject) -> Result<(HashPart, Arc<Known>), OutsideError> {
        let path: [u8; 20] = object
            .descriptor
            .as_ref()
            .try_into()
            .map_err(|_| OutsideError::Refused("it names no path".to_owned()))?;
        let path = HashPart::from_bytes(path);
        let known = match object.key.kind {
            SiteKind::UpstreamNarinfo if self.narinfo_object(path) == *object => {
                if let Some(known) = self.inner.known.get(&path) {
                    return Ok((path, known));
                }
                match self.inner.upstreams.narinfo(path, HOME_BUDGET).await {
                    Said::Found(found) => self.learn(path, found),
                    Said::Absent => return Err(OutsideError::Absent),
                    Said::Unknown(trouble) => return Err(failed(&trouble)),
                }
            }
            SiteKind::UpstreamFile => {
                let known = timeout(NARINFO_BUDGET, self.known(path)).await.ok().flatten();
                let known = known.ok_or_else(|| {
                    OutsideError::Refused("nothing is known of the path".to_owned())
                })?;
                if known.object.as_ref() != Some(object) {
                    return Err(OutsideError::Refused(
                        "it is not the file that is known".to_owned(),
                    ));
                }
                known
            }
            _ => return Err(OutsideError::Refused("it does not fit its name".to_owned())),
        };
        Ok((path, known))
    }

    async fn fetch_object(
        &self,
        object: SiteObject,
        range: Option<Range<u64>>,
    ) -> Result<Body, OutsideError> {
        let (_, known) = self.known_for(&object).await?;
        let found = &known.found;
        let Some(range) = range else {
            let text = write(found, &self.inner.trust.load());
            return Ok(stream::once(async move { Ok(Bytes::from(text)) }).boxed());
        };
        let len = range.end - range.start;
        let file = self.inner.upstreams.open(&found.file, range.start, Some(len)).await;
        let file = file.map_err(|trouble| match trouble {
            Trouble::Status(404) => OutsideError::Absent,
            other => failed(&other),
        })?;
        Ok(file.map_err(|trouble| failed(&trouble)).boxed())
    }

    async fn open_nar(&self, key: NarKey) -> Option<NarBytes> {
        let known = timeout(NARINFO_BUDGET, self.known(key.path)).await.ok().flatten()?;
        if !known.is(&key) {
            self.inner.reasons.note(&key.path, "the cache outside has another build".to_owned());
            return None;
        }
        let file = &known.found.file;
        let compressed = match &known.object {
            Some(object) => {
                let bytes = self.inner.site.stream(object.clone(), 0);
                bytes.map_err(|error| Trouble::Broken(error.to_string())).boxed()
            }
            None => self.inner.upstreams.open(file, 0, None).await.ok()?.boxed(),
        };
        unpack(&known.found, &key, compressed)
    }
}

impl Upstream {
    /// Forgets what led to a wrong file: everything but the signed part of a narinfo may be made up, so next time the caches
    /// themselves are asked. Gives what was known.
    fn forget(&self, path: &HashPart) -> Option<Arc<Known>> {
        let inner = &self.inner;
        let known = inner.known.get(path);
        inner.known.remove(path);
        inner.upstreams.forget(path);
        inner.wrong.lock().unwrap_or_else(PoisonError::into_inner).put(*path, ());
        inner.site.forget(&self.narinfo_object(*path));
        known
    }
}

impl Known {
    /// Whether it is the path of exactly this NAR.
    fn is(&self, key: &NarKey) -> bool {
        let info = &self.found.narinfo.info;
        info.nar_hash == key.nar_hash && info.nar_size == key.nar_size
    }
}

fn unpack(
    found: &Found,
    key: &NarKey,
    packed: BoxStream<'static, Result<Bytes, Trouble>>,
) -> Option<NarBytes> {
    let nar = decompress(&found.file.compression, key.nar_size, packed).ok()?;
    Some(nar.map_err(|trouble| trouble.to_string()).boxed())
}

/// Paths of which a peer's narinfo led to a wrong file: the caches are asked instead.
const WRONG_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1024).unwrap();

fn failed(trouble: &Trouble) -> OutsideError {
    OutsideError::Failed(trouble.to_string())
}

/// The document of a narinfo: the cache's name, a line end, the canonical text with the file's name relative to the cache.
fn write(found: &Found, trust: &Trust) -> String {
    let mut narinfo = found.narinfo.clone();
    narinfo.url.clone_from(&found.file.key);
    format!("{}\n{}", found.file.upstream, narinfo.to_text(&trust.store_dir))
}

fn split(document: &[u8]) -> Option<(&str, &[u8])> {
    let end = document.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&document[..end]).ok()?, &document[end + 1..]))
}

impl Outside for Upstream {
    fn ids(&self) -> Vec<OutsideId> {
        match self.inner.each.as_slice() {
            [] => Vec::new(),
            each => std::iter::once(self.inner.all).chain(each.iter().copied()).collect(),
        }
    }

    fn fetch(
        &self,
        object: SiteObject,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'static, Result<Body, OutsideError>> {
        let upstream = self.clone();
        async move { upstream.fetch_object(object, range).await }.boxed()
    }

    /// Strangers get what the sharing rule calls public: caches that want a password have private paths, too.
    fn may_give(&self, object: &SiteObject, to: Membership) -> BoxFuture<'static, bool> {
        let (upstream, object) = (self.clone(), object.clone());
        async move {
            match upstream.known_for(&object).await {
                Ok((_, known)) => {
                    let inner = &upstream.inner;
                    let policy = (inner.policy)();
                    let (store_dir, info) =
                        (&inner.trust.load().store_dir, &known.found.narinfo.info);
                    policy.public(store_dir, info)
                        || to == Membership::Member && policy.mesh_key.is_some()
                }
                // There is nothing to give away; the answer says so.
                Err(OutsideError::Absent) => true,
                Err(_) => false,
            }
        }
        .boxed()
    }
}

impl NarOutside for Upstream {
    fn is_there(&self) -> bool {
        !self.inner.upstreams.is_empty()
    }

    fn open(&self, key: NarKey) -> Answer<Option<NarBytes>> {
        let upstream = self.clone();
        Box::pin(async move {
            let bytes = upstream.open_nar(key).await?;
            let stats = Arc::clone(&upstream.inner.stats);
            Some(
                bytes
                    .inspect_ok(move |piece| stats.nar_bytes_outside.add(piece.len() as u64))
                    .boxed(),
            )
        })
    }

    fn kept(&self, key: NarKey) -> Option<NarBytes> {
        self.open_kept(key)
    }

    fn kept_wrong(&self, key: NarKey) {
        if let Some(object) = self.object(&key.path) {
            self.inner.site.doubt(&object);
        }
    }

    fn kept_was_wrong(&self, key: NarKey) {
        let known = self.forget(&key.path);
        if let Some(object) = known.and_then(|known| known.object.clone()) {
            self.inner.site.was_wrong(&object);
        }
    }

    fn wrong(&self, key: NarKey) {
        let known = self.forget(&key.path);
        if let Some(object) = known.and_then(|known| known.object.clone()) {
            self.inner.site.wrong(&object);
        }
    }
}
