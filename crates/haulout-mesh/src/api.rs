//! What the rest of the agent gives to the mesh, and the words both use.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use haulout_nix::{HashPart, NarHash, PathInfo};
use haulout_swarm::PeerId;
use haulout_swarm::holdings::{Ledger, Message, Update, Version};
use haulout_swarm::portions::{Stretch, Told};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use crate::archive::ProofQuestion;
use crate::siteframe::{SiteEnd, SiteRequest};
use crate::tree::NarTree;

/// Whether a peer has proven that it knows the mesh secret.
///
/// Without a secret nobody can prove anything, so on an open site everybody is a [`Membership::Stranger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Membership {
    /// The peer proved knowledge of this mesh's secret on this very connection.
    Member,
    /// Anybody else.
    Stranger,
}

/// For whom a set of holdings is meant; the same two groups as [`Membership`].
pub type Audience = Membership;

/// Who is asking: the authenticated key, what it proved, and where it sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The peer's Ed25519 key, proven in the TLS handshake.
    pub peer: PeerId,
    /// What it proved about the mesh secret.
    pub membership: Membership,
    /// The address its packets come from (for logs; it proves nothing).
    pub addr: SocketAddr,
}

/// One exact NAR: the path's hash part, the SHA-256 of the NAR and its size in bytes.
///
/// All three must match what the server holds, so a range of another build of the same path is never mixed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NarKey {
    /// Hash part of the store path.
    pub path: HashPart,
    /// SHA-256 of the whole NAR.
    pub nar_hash: NarHash,
    /// Length of the whole NAR in bytes.
    pub nar_size: u64,
}

/// Random access to the bytes of one NAR.
pub trait NarReader: Send + Sync {
    /// Fills `buf` from `offset` and says how many bytes were written; fewer than asked is allowed, 0 means the NAR ended.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] says "not there yet" (a NAR that is itself still arriving): the mesh asks again a
    /// little later, up to its stall limit. Every other error cuts the stream.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

/// What one audience may know of our holdings: a [`Ledger`] that the agent changes and every connection follows.
///
/// Members and strangers get one each; most agents announce more to members.
#[derive(Debug)]
pub struct HoldingsFeed {
    ledger: Mutex<Ledger>,
    version: watch::Sender<Version>,
}

impl HoldingsFeed {
    /// An empty feed with a random first version.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut random = [0; 8];
        // Without random numbers the first version is 0: a peer may then take a delta for one of an earlier run and ask
        // us in vain now and then. Not worth failing for.
        let _ = SystemRandom::new().fill(&mut random);
        let ledger = Ledger::new(u64::from_be_bytes(random));
        let (version, _) = watch::channel(ledger.version());
        Arc::new(Self { ledger: Mutex::new(ledger), version })
    }

    /// Takes a batch of keys that went and keys that came, as [`Ledger::change`]; peers are told within a tenth of a second.
    pub fn change(&self, gone: impl IntoIterator<Item = u32>, come: impl IntoIterator<Item = u32>) {
        if let Some(version) = self.lock().change(gone, come) {
            self.version.send_replace(version);
        }
    }

    /// How many prefixes are announced.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether a prefix is announced.
    pub(crate) fn announces(&self, prefix: u32) -> bool {
        self.lock().contains(prefix)
    }

    /// What comes next on a stream on which a portion is told.
    pub(crate) fn next(&self, told: &mut Told, stretch: &Stretch) -> Option<Message> {
        told.next(&self.lock(), stretch)
    }

    pub(crate) fn version(&self) -> Version {
        self.lock().version()
    }

    pub(crate) fn since(&self, known: Option<Version>) -> (Version, Update) {
        let ledger = self.lock();
        (ledger.version(), ledger.since(known))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Version> {
        self.version.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere cannot leave the ledger half changed in a way that matters: it is a hint.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a segment of a site object on their way to a peer.
pub trait SiteSource: Send {
    /// The next bytes (of any length above zero), or how it ends. Is polled until it is done: while it waits, the mesh tells
    /// the peer so. Dropped when the peer has gone.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = SitePiece> + Send + '_>>;
}

/// What a [`SiteSource`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SitePiece {
    /// The next bytes.
    Bytes(Bytes),
    /// Nothing follows.
    End(SiteEnd),
}

/// A source that has nothing to give.
impl SiteSource for SiteEnd {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = SitePiece> + Send + '_>> {
        let end = *self;
        Box::pin(async move { SitePiece::End(end) })
    }
}

/// What this machine gives to others.
///
/// Called on the mesh's blocking threads, several at a time. Must not panic. "No" is always polite and always the same,
/// whether the thing is unknown or not for this asker.
pub trait Serve: Send + Sync + 'static {
    /// The path infos to send for a question about `hash`, at most `max`.
    ///
    /// The first is the asked one; the rest are infos of its closure in breadth-first order, which the asker will want
    /// next. Empty means no.
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo>;

    /// The BLAKE3 tree of a NAR, if it is known (it need not be computed for the question).
    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree>;

    /// Opens a NAR for random access.
    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>>;

    /// Begins to give a segment of a site object, from [`SiteRequest::from`] on: relays what is here or arriving, or fetches
    /// it from outside for the asker. Must not block: it is called on the mesh's own thread.
    ///
    /// The default serves nobody.
    fn site(&self, asker: &Asker, request: SiteRequest) -> Box<dyn SiteSource> {
        let _ = (asker, request);
        Box::new(SiteEnd::Refused)
    }

    /// The newest proof of an archive, for whoever asks: proofs are public. `None`: no such archive is followed here, or
    /// nothing newer is known than the asker has. Must not block: it is polled on the mesh's own thread.
    ///
    /// The default knows none.
    fn archive_proof(
        &self,
        asker: &Asker,
        question: ProofQuestion,
    ) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>> {
        let _ = (asker, question);
        Box::pin(async { None })
    }

    /// What is announced to an audience, or `None` for nothing. Asked once for each connection: return the same feed each time.
    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>>;
}
