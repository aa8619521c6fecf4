//! Walrus on a site: slivers and metadata, each fetched once for everybody.
//!
//! Every sliver is an object of its own, with a home of its own. The home fetches it from the storage node that has it, relays
//! it while it arrives, and holds the end back until it has checked it against the blob's metadata; then it keeps it on disk
//! and announces it, so that it is found wherever homes may be by then. Readers check it again: a peer's sliver is believed no
//! more than a node's. A peer that asks can only make a home fetch public blobs from the nodes that the home itself knows from
//! its chain.
//!
//! # Reading
//!
//! [`SiteWalrus::client`] is an ordinary [`Client`] that happens to read from the whole site, so whatever takes a `Client`
//! (`haulout_onchain::OnChain`, say) reads what is here or at a neighbour's before it goes outside, without knowing of it.
//! [`SiteWalrus::read`] and [`SiteWalrus::stream`] are short forms:
//!
//! ```no_run
//! # async fn example(resolver: haulout_resolver::Resolver, blob: redstuff::BlobId) -> Option<()> {
//! # let known_hash = [0; 32];
//! let walrus = resolver.walrus()?; // None: no network is configured
//! // 64 KiB of a pack, checked by what the index says and nothing else, as long as that is right.
//! let right = std::sync::Arc::new(move |bytes: &[u8]| *blake3::hash(bytes).as_bytes() == known_hash);
//! let bytes = walrus.read(&blob, 0..65_536, Some(right)).await.ok()?;
//! # Some(()) }
//! ```

mod alone;
mod arriving;
mod blobs;
mod http;
mod names;
mod outside;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use haulout_cache::SliverCache;
use haulout_walrus::Client;

use super::{CameFrom, Site};
pub use alone::Alone;
use outside::{Announce, Walrus, WalrusOutside};
use source::SiteSource;

/// How an agent takes part.
#[derive(Clone, Debug)]
pub struct WalrusConfig {
    /// What people call the network, for status pages.
    pub name: String,
    /// Tells the network from all others, and is alike on all agents: the id of its System object.
    pub network: Vec<u8>,
    /// Reads from the storage nodes.
    pub direct: Client,
    /// Where what this agent fetched as a home is kept, if anywhere.
    pub cache: Option<Arc<SliverCache>>,
    /// Whether peers are given anything.
    pub share: bool,
}

/// A Walrus network as an agent of a site has it. Cheap to clone.
#[derive(Clone)]
pub struct SiteWalrus {
    name: Arc<str>,
    client: Client,
    inner: Arc<Walrus>,
}

impl SiteWalrus {
    /// Makes a network one of the site's places outside. `announce` tells peers what is kept.
    pub(crate) fn join(site: &Site, config: WalrusConfig, announce: Announce) -> Self {
        let id = names::outside_id(&config.network);
        let keeping = (config.cache, config.share);
        let inner =
            Arc::new(Walrus::new(site.clone(), config.direct.clone(), id, keeping, announce));
        site.add(Arc::new(WalrusOutside(Arc::clone(&inner))));
        let client = config.direct.with_source(Arc::new(SiteSource(Arc::clone(&inner))));
        Self { name: config.name.into(), client, inner }
    }

    /// What people call the network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that agents use for the network among themselves.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        *self.inner.id.as_bytes()
    }

    /// Reads from the whole site: what a neighbour has, or is about to fetch, does not come from outside.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads from neighbours alone, without knowing the network's committee.
    #[must_use]
    pub fn alone(&self) -> Alone {
        Alone::new(self.inner.site.clone(), self.inner.id)
    }

    /// What was read and fetched since the start, and what is kept.
    #[must_use]
    pub fn counts(&self) -> WalrusCounts {
        let (kept_slivers, kept_bytes) = self.inner.kept_now();
        WalrusCounts { kept_slivers: kept_slivers as u64, kept_bytes, ..self.inner.counts.now() }
    }
}

impl fmt::Debug for SiteWalrus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteWalrus").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name that agents use among themselves for the network of these bytes ([`WalrusConfig::network`]).
#[must_use]
pub fn network_id(network: &[u8]) -> [u8; 32] {
    *names::outside_id(network).as_bytes()
}

/// Slivers and their bytes by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Slivers.
    pub slivers: u64,
    /// Bytes, as they travelled.
    pub bytes: u64,
}

/// What an agent counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalrusCounts {
    /// Read for this machine, from what it keeps.
    pub from_here: Tally,
    /// Read for this machine, from peers.
    pub from_peers: Tally,
    /// Read for this machine, from storage nodes.
    pub from_nodes: Tally,
    /// Fetched from storage nodes, for this machine and for others; the bytes include metadata.
    pub fetched: Tally,
    /// Peers that were found to have relayed something false.
    pub liars: u64,
    /// Slivers (and metadata) kept on disk now.
    pub kept_slivers: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

#[derive(Debug, Default)]
struct Pair {
    slivers: AtomicU64,
    bytes: AtomicU64,
}

impl Pair {
    fn add(&self, slivers: u64, bytes: u64) {
        self.slivers.fetch_add(slivers, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn now(&self) -> Tally {
        Tally {
            slivers: self.slivers.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    here: Pair,
    peers: Pair,
    nodes: Pair,
    fetched: Pair,
    liars: AtomicU64,
}

impl Counts {
    fn read(&self, from: CameFrom, bytes: u64) {
        match from {
            CameFrom::Here => self.here.add(1, bytes),
            CameFrom::Peers => self.peers.add(1, bytes),
            CameFrom::Outside => self.nodes.add(1, bytes),
        }
    }

    fn fetched(&self, slivers: u64, bytes: u64) {
        self.fetched.add(slivers, bytes);
    }

    fn found_liars(&self, liars: u64) {
        self.liars.fetch_add(liars, Ordering::Relaxed);
    }

    fn now(&self) -> WalrusCounts {
        WalrusCounts {
            from_here: self.here.now(),
            from_peers: self.peers.now(),
            from_nodes: self.nodes.now(),
            fetched: self.fetched.now(),
            liars: self.liars.load(Ordering::Relaxed),
            ..WalrusCounts::default()
        }
    }
}
