//! One archive, kept up to date: who is asked how often, and what it is like.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use haulout_depot::ArchiveSource;
use haulout_gateway::api::SourceReport;
use haulout_mesh::{Fault, Mesh, PeerId, PeerState, ProofQuestion, RequestError};
use haulout_onchain::Following;
use haulout_sui::archive::{ArchiveError, ArchiveTracker, Beat};
use haulout_sui::proof::ProofError;
use haulout_sui::prover::{ProveError, Prover};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chain;
use crate::report;

/// The longest that all full nodes together may take.
const POLL_LIMIT: Duration = Duration::from_secs(60);
/// How often peers are asked: while nothing is proven or no full node answers, and else.
const PEERS_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Peers asked at a time.
const PEERS_AT_ONCE: usize = 4;
/// How long a peer may take to hand a proof over.
const PEER_LIMIT: Duration = Duration::from_secs(10);

/// How often full nodes are asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// For something newer.
    every: Duration,
    /// When nobody answers, or what was proven cannot be opened: the first wait, and the longest.
    retry: (Duration, Duration),
}

impl Default for Pace {
    fn default() -> Self {
        let retry = (Duration::from_secs(2), Duration::from_secs(300));
        Self { every: Duration::from_secs(30), retry }
    }
}

/// How far an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Nobody has answered yet.
    Begun,
    /// Questions are answered.
    Open,
    /// It could not be proven or opened; why. It is tried again.
    Failing(String),
}

/// One archive.
pub(super) struct Follow {
    pub(super) tracker: Arc<ArchiveTracker>,
    prover: Arc<Prover>,
    pub(super) following: Arc<Following>,
    pub(super) source: Arc<ArchiveSource>,
    pace: Pace,
    /// How often it is updated at the least, if that was promised.
    beat: Option<Beat>,
    stage: watch::Sender<Stage>,
    /// Why full nodes are of no help, if they are not.
    trouble: Mutex<Option<String>>,
}

impl Follow {
    pub(super) fn new(
        tracker: Arc<ArchiveTracker>,
        prover: Arc<Prover>,
        following: Arc<Following>,
        source: ArchiveSource,
        (pace, beat): (Pace, Option<Beat>),
    ) -> Self {
        let (stage, _) = watch::channel(Stage::Begun);
        let source = Arc::new(source);
        Self { tracker, prover, following, source, pace, beat, stage, trouble: Mutex::default() }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why what was proven last is too old to be asked, if it is.
    fn stale(&self) -> Option<String> {
        let (beat, newest) = (self.beat?, self.tracker.newest()?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        newest.check_fresh(now_ms, beat).err().map(|error| chain(&error))
    }

    /// The source once it is open. Waits only while nobody has answered yet.
    pub(super) fn opened(
        &self,
    ) -> impl Future<Output = Result<Arc<ArchiveSource>, String>> + Send + 'static {
        let (mut stage, source) = (self.stage.subscribe(), Arc::clone(&self.source));
        let stale = self.stale();
        async move {
            if let Some(why) = stale {
                return Err(why);
            }
            let decided = stage.wait_for(|stage| *stage != Stage::Begun).await;
            match &*decided.map_err(|_| "the agent is ending".to_owned())? {
                Stage::Failing(why) => Err(why.clone()),
                Stage::Open | Stage::Begun => Ok(source),
            }
        }
    }

    /// A failure counts only as long as nothing is open: what was proven goes on serving.
    fn failed(&self, why: String) {
        self.stage.send_if_modified(|stage| {
            let changes = *stage != Stage::Open;
            if changes {
                *stage = Stage::Failing(why);
            }
            changes
        });
    }

    /// Asks full nodes, for ever.
    pub(super) async fn poll_for_ever(self: Arc<Self>) {
        let (least, most) = self.pace.retry;
        let mut retry = least;
        loop {
            let trouble = match timeout(POLL_LIMIT, self.tracker.poll()).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(chain(&error)),
                Err(_) => Some(format!("no full node answered within {} s", POLL_LIMIT.as_secs())),
            };
            let wait = if trouble.is_none() { self.pace.every } else { retry };
            retry = if trouble.is_none() { least } else { (retry * 2).min(most) };
            if let Some(why) = &trouble {
                if self.trouble().is_none() {
                    tracing::warn!(archive = %self.tracker.id(), why, "full nodes are of no help");
                }
                if self.tracker.newest().is_none() {
                    self.failed(why.clone());
                }
            }
            self.set_trouble(trouble);
            sleep(wait).await;
        }
    }

    /// Opens what was proven, and everything newer, for ever.
    pub(super) async fn open_for_ever(self: Arc<Self>) {
        let (least, most) = self.pace.retry;
        let mut retry = least;
        let mut newest = self.tracker.subscribe();
        loop {
            let sequence = newest.borrow_and_update().as_ref().map(|proven| proven.state.sequence);
            let wait = match sequence {
                None => None,
                Some(sequence) => match self.source.refresh().await {
                    Ok(()) => {
                        tracing::info!(archive = %self.tracker.id(), sequence, "archive open");
                        self.stage.send_replace(Stage::Open);
                        retry = least;
                        None
                    }
                    Err(error) => {
                        let why = chain(&error);
                        tracing::warn!(archive = %self.tracker.id(), why, "archive not opened");
                        self.failed(why);
                        retry = (retry * 2).min(most);
                        Some(retry)
                    }
                },
            };
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Asks peers, for ever.
    pub(super) async fn ask_peers_for_ever(self: Arc<Self>, mesh: Mesh) {
        let mut next = 0_usize;
        loop {
            let connected: Vec<PeerId> = mesh
                .peers()
                .into_iter()
                .filter(|peer| peer.state == PeerState::Connected)
                .map(|peer| peer.id)
                .collect();
            for _ in 0..PEERS_AT_ONCE.min(connected.len()) {
                let peer = connected[next % connected.len()];
                next = next.wrapping_add(1);
                self.ask_peer(&mesh, peer).await;
            }
            let alone = self.tracker.newest().is_none() || self.trouble().is_some();
            let (eager, calm) = PEERS_EVERY;
            sleep(if alone { eager } else { calm }).await;
        }
    }

    async fn ask_peer(&self, mesh: &Mesh, peer: PeerId) {
        let id = self.tracker.id();
        let question = ProofQuestion {
            archive: id.0,
            known: self.tracker.newest().map_or(0, |proven| proven.version),
            epoch: self.prover.last_epoch().await,
        };
        let document = match mesh.archive_proof(&peer, question, PEER_LIMIT).await {
            Ok(document) => document,
            Err(RequestError::Protocol(why)) => {
                tracing::debug!(peer = %peer.short(), why, "no proof");
                return mesh.blame(&peer, Fault::ProtocolViolation);
            }
            Err(error) => {
                return tracing::trace!(peer = %peer.short(), %error, "no proof");
            }
        };
        match self.tracker.offer(&document).await {
            Ok(true) => {
                tracing::info!(archive = %id, peer = %peer.short(), "a peer's proof was newer");
            }
            Ok(false) => {}
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(archive = %id, peer = %peer.short(), why, "a peer's proof is refused");
                if is_lie(&error) {
                    mesh.blame(&peer, Fault::WrongContent);
                }
                if self.tracker.newest().is_none() {
                    self.failed(why);
                }
            }
        }
    }

    /// What a peer gets that asks.
    pub(super) async fn proof(&self, question: ProofQuestion) -> Option<Bytes> {
        let newest = self.tracker.newest()?;
        if newest.version <= question.known {
            return None;
        }
        self.tracker.document_for(question.epoch).await.map(Bytes::from)
    }

    /// For status pages.
    pub(super) fn status(&self) -> SourceReport {
        let stage = self.stage.borrow().clone();
        let newest = self.tracker.newest();
        let stale = self.stale();
        let state = match (&stage, &newest) {
            (_, Some(_)) if stale.is_some() => "stale".to_owned(),
            (Stage::Open, Some(proven)) => format!("sequence {}", proven.state.sequence),
            (Stage::Failing(_), Some(_)) => "not readable".to_owned(),
            (_, Some(_)) => "opening".to_owned(),
            (Stage::Failing(_), None) => "not proven".to_owned(),
            (_, None) => "asking".to_owned(),
        };
        let mut detail = Vec::new();
        if let Some(proven) = &newest {
            let state = &proven.state;
            let entries: u64 = state.levels.iter().map(|level| level.leaves).sum();
            detail.push(format!("{entries} entries"));
            if let Some(end) = state.levels.iter().map(|level| level.end_epoch).min() {
                detail.push(format!("stored until epoch {end}"));
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let age = now.saturating_sub(Duration::from_millis(state.updated_ms));
            detail.push(format!("updated {} ago", report::duration(age)));
        }
        let usable = stage == Stage::Open && stale.is_none();
        detail.extend(stale);
        if let Stage::Failing(why) = &stage {
            detail.push(why.clone());
        } else if let Some(why) = self.trouble() {
            detail.push(format!("full nodes: {why}"));
        }
        SourceReport {
            name: self.tracker.id().to_string(),
            label: newest.as_ref().and_then(|proven| label(&proven.state.name)),
            usable,
            state,
            detail: (!detail.is_empty()).then(|| detail.join(", ")),
            bytes: self.following.bytes(),
            ..SourceReport::default()
        }
    }
}

/// What its owner calls it, as far as it is something to show.
fn label(name: &str) -> Option<String> {
    let shown: String = name.chars().filter(|c| !c.is_control()).collect();
    Some(shown.trim().to_owned()).filter(|shown| !shown.is_empty())
}

/// Whether whoever handed such a proof over must have known that it is none. A committee that is not known here is
/// nobody's fault, and an old proof was once a good one.
fn is_lie(error: &ArchiveError) -> bool {
    match error {
        ArchiveError::Prove(ProveError::Proof(proof)) => {
            !matches!(proof, ProofError::UnknownEpoch { .. } | ProofError::Version(_))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
