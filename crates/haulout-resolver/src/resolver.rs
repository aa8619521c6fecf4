//! The resolver: one place through which every question goes.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_cache::Cache;
use haulout_gateway::api::AgentStatus;
use haulout_gateway::{Client, Cut, NarBody};
use haulout_mesh::NarKey;
use haulout_nix::db::{DbError, StoreLocation};
use haulout_nix::{HashPart, KeySet, NarHash, PathInfo};
use haulout_upstream::Upstreams;

use crate::archives::{Archive, Archives, Proofs};
use crate::bounded::Bounded;
use crate::disk::Disk;
use crate::keep::{KeepNars, Keeper};
use crate::local::{LocalStore, Place, Poke, SharePolicy, follow};
use crate::lookup::Lookup;
use crate::outsides::Outsides;
use crate::peers::Peers;
use crate::reasons::Reasons;
use crate::serving::Giver;
use crate::site::ahead::Ahead;
use crate::site::nars::LanNars;
use crate::site::upstream::Upstream;
use crate::site::walrus::{SiteWalrus, WalrusConfig, network_id};
use crate::site::{AheadLimits, MEMORY_BYTES, Site};
use crate::stats::Stats;
use crate::transfer::{Aside, BUDGET_BYTES, Budget, CutReason, Reader, Transfers};
use crate::trees::Trees;
use crate::trust::Trust;

/// What the memory of believed infos may take, in bytes: some 5,000 of them.
const BELIEVED_BYTES: usize = 512 << 10;

/// What the resolver needs to know.
#[derive(Clone)]
pub struct ResolverConfig {
    /// The machine's own store.
    pub store: StoreLocation,
    /// The keys this machine's Nix trusts.
    pub trusted_keys: KeySet,
    /// What is shared with whom.
    pub share: SharePolicy,
    /// Memory of all transfers together, in bytes.
    pub budget_bytes: u64,
    /// Where disputed NARs are put aside, in files without names.
    pub spool_dir: PathBuf,
    /// Whether this machine fetches from outside for others. One on a metered
    /// link does not.
    pub fetch_for_others: bool,
    /// Bytes of pieces from outside that are kept in memory, at most; [`crate::site::MEMORY_MIN`] at least.
    pub site_memory: u64,
    /// How much is fetched from outside before Nix asks for it.
    pub ahead: AheadLimits,
    /// Where verified infos and trees are remembered over a restart. The
    /// resolver writes it out every few seconds and when it ends.
    pub cache: Option<Cache>,
    /// Which NARs are written to it.
    pub keep_nars: KeepNars,
}

impl ResolverConfig {
    /// The defaults for a store and its trusted keys: share what is signed
    /// by one of them.
    pub fn new(store: StoreLocation, trusted_keys: KeySet) -> Self {
        let share = SharePolicy { keys: trusted_keys.clone(), ..SharePolicy::default() };
        Self {
            store,
            trusted_keys,
            share,
            budget_bytes: BUDGET_BYTES,
            spool_dir: std::env::temp_dir(),
            cache: None,
            keep_nars: KeepNars::default(),
            fetch_for_others: true,
            site_memory: MEMORY_BYTES,
            ahead: AheadLimits::default(),
        }
    }
}

/// Why the resolver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store database cannot be used.
    #[error("cannot use the Nix store's database")]
    Store(#[from] DbError),
    /// No thread could be started to follow it.
    #[error("cannot start the thread that follows the store")]
    Thread(#[from] io::Error),
}

/// What this machine gives: the half of the resolver that the mesh needs to
/// start, made before it.
#[derive(Clone)]
pub struct Serving {
    pub(crate) local: Arc<LocalStore>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) stats: Arc<Stats>,
    site: Site,
    disk: Disk,
    poke: Poke,
    proofs: Arc<OnceLock<Arc<dyn Proofs>>>,
}

impl Serving {
    /// Reads the store and begins to follow it. Blocking: 50,000 paths take
    /// some hundred milliseconds.
    ///
    /// # Errors
    /// See [`StartError`]. A store that does not exist is empty.
    pub fn open(config: &ResolverConfig) -> Result<Self, StartError> {
        let disk = Disk::new(config.cache.clone());
        let (trees, stats) = (Arc::new(Trees::new(disk.clone())), Arc::new(Stats::default()));
        let local = LocalStore::open(
            &config.store,
            config.share.clone(),
            Arc::clone(&trees),
            disk.clone(),
            Arc::clone(&stats),
        )?;
        let local = Arc::new(local);
        let to_write = disk.clone();
        let poke = follow(&local, Box::new(move || to_write.tick()))?;
        let site = Site::new(Arc::clone(&stats), config.fetch_for_others, config.site_memory);
        Ok(Self { local, trees, stats, site, disk, poke, proofs: Arc::default() })
    }

    /// What to give [`haulout_mesh::Mesh::start`].
    pub fn serve(&self) -> Arc<dyn haulout_mesh::Serve> {
        Arc::new(Giver {
            local: Arc::clone(&self.local),
            site: self.site.clone(),
            proofs: Arc::clone(&self.proofs),
        })
    }

    /// Peers may have these proofs of archives, from now on. Only the first call counts.
    pub fn set_proofs(&self, proofs: Arc<dyn Proofs>) {
        let _ = self.proofs.set(proofs);
    }

    /// The machine's own store.
    pub fn store(&self) -> &Arc<LocalStore> {
        &self.local
    }
}

/// Turns questions of the local Nix into verified answers. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: StoreLocation,
    pub(crate) local: Arc<LocalStore>,
    pub(crate) trust: Arc<ArcSwap<Trust>>,
    pub(crate) lookup: Lookup,
    pub(crate) transfers: Transfers,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) disk: Disk,
    pub(crate) stats: Arc<Stats>,
    pub(crate) reasons: Arc<Reasons>,
    /// Infos of the own store that were judged well. As long as the `Weak` is
    /// here, no other info can have its address.
    believed: Bounded<HashPart, Weak<PathInfo>>,
    pub(crate) site: Site,
    lan: LanNars,
    outside: OnceLock<Outside>,
    pub(crate) outsides: Arc<Outsides>,
    pub(crate) walrus: OnceLock<SiteWalrus>,
    ahead: AheadLimits,
    pub(crate) about: Mutex<AgentStatus>,
    pub(crate) started: Instant,
    poke: Poke,
}

/// The caches outside.
struct Outside {
    upstream: Upstream,
    ahead: Arc<Ahead>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.site.close();
    }
}

/// Where an answer came from.
pub(crate) enum Origin {
    Store(Arc<PathInfo>),
    Cache(Arc<PathInfo>),
    Peers(crate::lookup::Found),
    Archive(Arc<PathInfo>),
    Outside(Arc<PathInfo>),
}

impl Origin {
    pub(crate) fn info(&self) -> &Arc<PathInfo> {
        match self {
            Self::Store(info) | Self::Cache(info) | Self::Archive(info) | Self::Outside(info) => {
                info
            }
            Self::Peers(found) => &found.info,
        }
    }
}

impl Resolver {
    /// Starts to resolve, with `peers` (normally the mesh that `serving` was
    /// given to).
    pub fn start(config: &ResolverConfig, serving: Serving, peers: Arc<dyn Peers>) -> Self {
        let Serving { local, trees, stats, site, disk, poke, proofs: _ } = serving;
        site.set_peers(Arc::clone(&peers));
        let trust =
            Trust { store_dir: config.store.store_dir.clone(), keys: config.trusted_keys.clone() };
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        let reasons = Arc::new(Reasons::new());
        let lookup = Lookup::new(
            Arc::clone(&peers),
            Arc::clone(&trust),
            disk.clone(),
            Arc::clone(&stats),
            Arc::clone(&reasons),
        );
        let keeper = Keeper::new(
            config.keep_nars,
            disk.clone(),
            Arc::clone(&local),
            Arc::clone(&peers),
            Arc::clone(&stats),
        );
        let soon = poke.clone();
        let transfers = Transfers::new(
            Arc::clone(&peers),
            Budget::new(config.budget_bytes),
            trees,
            Arc::clone(&stats),
            Arc::clone(&reasons),
            Aside { spool_dir: &config.spool_dir, keeper: Some(keeper) },
            // Nix is about to register the path: peers should learn of it.
            Box::new(move |_| soon.soon()),
        );
        let outsides = Arc::new(Outsides::default());
        transfers.set_outside(outsides.clone());
        let lan = LanNars::new(
            site.clone(),
            Arc::downgrade(&transfers.shared),
            Arc::clone(&local),
            Arc::clone(&trust),
        );
        transfers.set_fellows(Arc::new(lan.clone()));
        transfers.set_limit(Arc::clone(site.peers_limit()));
        site.add(Arc::new(lan.clone()));
        let inner = Inner {
            store: config.store.clone(),
            local,
            trust,
            lookup,
            transfers,
            peers,
            disk,
            stats,
            reasons,
            believed: Bounded::new(BELIEVED_BYTES),
            site,
            lan,
            outside: OnceLock::new(),
            outsides,
            walrus: OnceLock::new(),
            ahead: config.ahead,
            about: Mutex::default(),
            started: Instant::now(),
            poke,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The caches outside are asked for what nobody here has, from now on and
    /// once for the whole site. Only the first call counts. Within a runtime.
    pub fn set_upstreams(&self, upstreams: Upstreams) {
        let inner = &self.inner;
        let local = Arc::clone(&inner.local);
        let upstream = Upstream::new(
            upstreams,
            inner.site.clone(),
            Arc::clone(&inner.trust),
            move || local.policy(),
            Arc::clone(&inner.stats),
            Arc::clone(&inner.reasons),
        );
        let ahead = Ahead::start(upstream.clone(), Arc::clone(&inner.local), inner.ahead);
        if inner.outside.set(Outside { upstream: upstream.clone(), ahead }).is_ok() {
            let _ = inner.outsides.upstream.set(upstream.clone());
            inner.site.add(Arc::new(upstream));
        }
    }

    /// These archives are asked, in this order, for what no peer has, before the caches outside. Only the first call
    /// counts. What they say is signed with a key that must be among the trusted ones.
    pub fn set_archives(&self, archives: Vec<Arc<dyn Archive>>) {
        let inner = &self.inner;
        let archives =
            Archives::new(archives, Arc::clone(&inner.stats), Arc::clone(&inner.reasons));
        let _ = inner.outsides.archives.set(archives);
    }

    /// Blobs of this Walrus network can be read through the site from now on. Only the first call counts. Within a
    /// runtime.
    pub fn set_walrus(&self, config: WalrusConfig) -> &SiteWalrus {
        self.inner.walrus.get_or_init(|| {
            let local = Arc::clone(&self.inner.local);
            let announce = move |gone: &[u32], come: &[u32]| local.announce_public(gone, come);
            SiteWalrus::join(&self.inner.site, config, Box::new(announce))
        })
    }

    /// One more network to read blobs from, or the one that there is already.
    pub fn join_walrus(&self, config: WalrusConfig) -> SiteWalrus {
        let id = network_id(&config.network);
        if let Some(known) = self.walrus().filter(|known| known.id() == id) {
            return known.clone();
        }
        let local = Arc::clone(&self.inner.local);
        let announce = move |gone: &[u32], come: &[u32]| local.announce_public(gone, come);
        SiteWalrus::join(&self.inner.site, config, Box::new(announce))
    }

    /// The Walrus network of this agent, if it has one.
    pub fn walrus(&self) -> Option<&SiteWalrus> {
        self.inner.walrus.get()
    }

    /// The engine for what must come from outside, to add other places to.
    pub fn site(&self) -> &Site {
        &self.inner.site
    }

    /// What this machine believes, whenever it is called. Holds on to nothing
    /// else of the resolver.
    pub fn trust_source(&self) -> impl Fn() -> Arc<Trust> + Send + Sync + 'static {
        let trust = Arc::clone(&self.inner.trust);
        move || trust.load_full()
    }

    /// Trusts these keys from now on; what was verified with others is
    /// forgotten.
    pub fn set_trusted_keys(&self, keys: KeySet) {
        let store_dir = self.inner.trust.load().store_dir.clone();
        self.inner.trust.store(Arc::new(Trust { store_dir, keys }));
        self.inner.lookup.forget_all();
        self.inner.believed.clear();
        if let Some(archives) = self.inner.outsides.archives.get() {
            archives.forget_all();
        }
        if let Some(outside) = self.inner.outside.get() {
            outside.upstream.forget_all();
        }
    }

    /// Shares by this rule from now on (blocking for some milliseconds). Does
    /// not end a pause.
    pub fn set_share_policy(&self, policy: SharePolicy) {
        let paused = self.inner.local.policy().paused;
        self.inner.local.set_policy(SharePolicy { paused, ..policy });
    }

    /// Gives nothing to peers from now on, and announces nothing; or does so
    /// again (blocking for some milliseconds). What is on its way goes on.
    pub fn pause_sharing(&self, paused: bool) {
        let policy = SharePolicy::clone(&self.inner.local.policy());
        self.inner.local.set_policy(SharePolicy { paused, ..policy });
    }

    /// Limits what comes from peers, in bytes per second; `None`: no limit.
    pub fn limit_from_peers(&self, bytes_per_second: Option<u64>) {
        self.inner.site.peers_limit().set(bytes_per_second);
    }

    /// What the agent says about itself beyond what the resolver knows
    /// (version, key, listening addresses, warnings ...): the base of every
    /// status answer.
    pub fn set_about(&self, about: AgentStatus) {
        *self.inner.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    /// Changes what was said with [`Self::set_about`].
    pub fn change_about(&self, change: impl FnOnce(&mut AgentStatus)) {
        change(&mut self.inner.about.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    /// Looks at the store soon instead of at the next regular time.
    pub fn store_changed(&self) {
        self.inner.poke.soon();
    }

    /// The verified info of a path; `None`: nobody here has it.
    pub async fn path_info(&self, hash: HashPart) -> Option<Arc<PathInfo>> {
        self.path_info_for(Client::OwnNix, hash).await
    }

    /// The same for somebody else. Another agent is told what is here
    /// or in archives; caches outside are asked for it only if none of them is
    /// an agent as well. So agents that name each other as caches never ask in a circle.
    pub(crate) async fn path_info_for(
        &self,
        client: Client,
        hash: HashPart,
    ) -> Option<Arc<PathInfo>> {
        let circle = || {
            let outside = self.inner.outside.get();
            outside.is_some_and(|outside| outside.upstream.asks_agents())
        };
        let origin = match client {
            Client::Agent if circle() => match self.here(hash, None).await {
                None => self.archive(hash, None).await,
                here => here,
            },
            _ => self.origin(hash, None).await,
        }?;
        match (&origin, self.inner.outside.get()) {
            (Origin::Archive(info), _) => {
                if let Some(archives) = self.inner.outsides.archives.get() {
                    archives.look_ahead(info);
                }
            }
            (Origin::Peers(found), outside) => {
                self.inner.lan.wanted(&found.info);
                self.inner.transfers.prepare(&found.info);
                if let Some(outside) = outside {
                    outside.upstream.wanted(&found.info);
                }
            }
            (Origin::Outside(_), Some(outside)) => outside.ahead.info_asked(hash),
            _ => {}
        }
        Some(Arc::clone(origin.info()))
    }

    /// Where a path can be had. With `want`, only that very NAR will do.
    pub(crate) async fn origin(&self, hash: HashPart, want: Option<NarHash>) -> Option<Origin> {
        if let Some(here) = self.here(hash, want).await {
            return Some(here);
        }
        let origin = self.outside(hash, want).await;
        if origin.is_none() {
            self.inner.stats.info_miss.one();
        }
        origin
    }

    /// The same without the outside.
    async fn here(&self, hash: HashPart, want: Option<NarHash>) -> Option<Origin> {
        let inner = &self.inner;
        if let Some(info) = self.own(hash).await
            && want.is_none_or(|want| want == info.nar_hash)
        {
            inner.stats.info_store.one();
            return Some(Origin::Store(info));
        }
        if let Some(info) = inner.local.kept_info(&hash)
            && want.is_none_or(|want| want == info.nar_hash)
            && inner.trust.load().judge(&info).is_ok()
        {
            inner.stats.info_kept.one();
            return Some(Origin::Cache(info));
        }
        let found = inner.lookup.path_info(hash, want).await?;
        if inner.disk.has_nar(&found.info.nar_hash) {
            // Its info was lost in a kill, or it is another path's NAR as well.
            inner.local.keep(&found.info);
            return Some(Origin::Cache(found.info));
        }
        Some(Origin::Peers(found))
    }

    /// What an archive says about a path.
    async fn archive(&self, hash: HashPart, want: Option<NarHash>) -> Option<Origin> {
        let info = self.inner.outsides.archives.get()?.path_info(hash).await?;
        want.is_none_or(|want| want == info.nar_hash).then_some(Origin::Archive(info))
    }

    /// What an archive says about a path, or else a cache outside.
    async fn outside(&self, hash: HashPart, want: Option<NarHash>) -> Option<Origin> {
        if let Some(found) = self.archive(hash, want).await {
            return Some(found);
        }
        let info = self.inner.outside.get()?.upstream.path_info(hash).await?;
        want.is_none_or(|want| want == info.nar_hash).then_some(Origin::Outside(info))
    }

    /// A path of the own store that this machine's Nix would believe.
    async fn own(&self, hash: HashPart) -> Option<Arc<PathInfo>> {
        let local = &self.inner.local;
        if !local.contains(&hash) {
            return None;
        }
        let info = match local.info_at_once(&hash) {
            Some(info) => info,
            None => {
                let local = Arc::clone(local);
                tokio::task::spawn_blocking(move || local.info(&hash)).await.ok()??
            }
        };
        self.believes(&info).then_some(info)
    }

    /// Whether this machine's Nix would believe it. Remembered, because Nix's
    /// questions come in groups and a signature takes longer to check than
    /// all else.
    fn believes(&self, info: &Arc<PathInfo>) -> bool {
        let hash = info.path.hash_part();
        let known = self.inner.believed.get(&hash);
        if known.is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(info))) {
            return true;
        }
        let good = self.inner.trust.load().judge(info).is_ok();
        if good {
            self.inner.believed.put(hash, Arc::downgrade(info), 0);
        }
        good
    }

    /// The NAR of a path from byte `from` on, verified; `None`: it cannot be
    /// had. Answers when the first bytes are at hand.
    pub async fn nar(&self, path: HashPart, nar_hash: NarHash, from: u64) -> Option<NarBody> {
        self.nar_for(Client::OwnNix, path, nar_hash, from).await
    }

    /// The same for somebody else.
    pub(crate) async fn nar_for(
        &self,
        client: Client,
        path: HashPart,
        nar_hash: NarHash,
        from: u64,
    ) -> Option<NarBody> {
        let origin = self.origin(path, Some(nar_hash)).await?;
        let info = Arc::clone(origin.info());
        let size = info.nar_size;
        if from >= size {
            return (from == size).then(|| NarBody::new(size, stream::empty()));
        }
        if let Origin::Store(info) | Origin::Cache(info) = &origin {
            let key = NarKey { path, nar_hash, nar_size: info.nar_size };
            if let Some((place, mut pieces)) = self.inner.local.stream(key, from).await {
                match place {
                    Place::Store => self.inner.stats.nar_store.one(),
                    Place::Cache => self.inner.stats.nar_cache.one(),
                }
                let stream =
                    stream::poll_fn(move |cx| pieces.poll_recv(cx)).map(|piece| piece.map_err(cut));
                return Some(NarBody::new(size, stream));
            }
        }
        if let Some(outside) = self.inner.outside.get() {
            outside.ahead.nar_asked(&path);
        }
        let hint = match &origin {
            Origin::Peers(found) => {
                self.inner.lan.wanted(&found.info);
                found.from
            }
            Origin::Store(_) | Origin::Cache(_) | Origin::Archive(_) | Origin::Outside(_) => None,
        };
        let reader = self.inner.transfers.open_for(client, &info, hint, from).await?;
        Some(NarBody { size, stream: self.body(client, info, hint, reader) })
    }

    /// The stream a response reads. One that is left behind by faster readers
    /// goes on with a transfer of its own, unseen by the client.
    fn body(
        &self,
        client: Client,
        info: Arc<PathInfo>,
        hint: Option<haulout_swarm::PeerId>,
        reader: Reader,
    ) -> BoxStream<'static, Result<Bytes, Cut>> {
        let resolver = self.clone();
        let state = Some((resolver, info, hint, reader));
        stream::unfold(state, move |state| async move {
            let (resolver, info, hint, mut reader) = state?;
            loop {
                let stats = &resolver.inner.stats;
                match reader.next().await {
                    Ok(None) => return None,
                    Ok(Some(bytes)) => {
                        stats.bytes_delivered.add(bytes.len() as u64);
                        return Some((Ok(bytes), Some((resolver, info, hint, reader))));
                    }
                    Err(CutReason::Detached) => {
                        let (transfers, at) = (&resolver.inner.transfers, reader.position());
                        match transfers.open_for(client, &info, hint, at).await {
                            Some(own) => reader = own,
                            None => return Some((Err(cut(CutReason::NoSource)), None)),
                        }
                    }
                    Err(why) => return Some((Err(cut(why)), None)),
                }
            }
        })
        .boxed()
    }
}

fn cut(why: CutReason) -> Cut {
    Cut::new(why.to_string())
}
