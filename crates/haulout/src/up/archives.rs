//! The archives this machine asks: opened, kept up to date by full nodes and peers, handed to the resolver.

mod follow;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haulout_depot::{ArchiveSource, Policy};
use haulout_gateway::api::{SourceReport, Warning};
use haulout_mesh::{Mesh, NarKey, ProofQuestion};
use haulout_nix::{HashPart, KeySet, PathInfo, SecretKey, StoreDir};
use haulout_onchain::{ArchiveFile, Following, OtherWay, RecentBytes};
use haulout_resolver::peers::Answer;
use haulout_resolver::site::walrus::{Alone, WalrusConfig};
use haulout_resolver::{NarBytes, Proofs, Resolver};
use haulout_sui::archive::{ArchiveTracker, Beat};
use haulout_sui::chain::SuiChain;
use haulout_sui::network::{TrustAnchor, base58_decode};
use haulout_sui::prover::Prover;
use haulout_sui::{Network, ObjectId};
use haulout_walrus::Client;
use redstuff::BlobId;
use tokio::task::JoinHandle;

use crate::config::{Anchor, Archive, ArchiveName, Settings};
use crate::error::{Context, Failure, Outcome};
use follow::{Follow, Pace};

/// How often slivers in memory are looked at, and how long ago the last one was wanted when they go.
const TIDY: Duration = Duration::from_secs(30);

/// Beats that an archive may miss before it counts as stale: a machine that publishes may restart.
const BEATS_MISSED: u32 = 3;

/// A network as the agent has it, shared by all archives on it.
struct Net {
    /// As it was named.
    name: String,
    network: Network,
    prover: Arc<Prover>,
}

/// The archives of this machine.
pub(crate) struct Archives {
    all: Vec<Arc<Follow>>,
    /// What each setting says and the network that it names, in the order of `all`.
    settings: Vec<(Archive, Arc<Net>)>,
    tasks: Vec<JoinHandle<()>>,
}

/// What opening archives needs of the rest.
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) store_dir: StoreDir,
    /// The keys that Nix trusts.
    pub(crate) trusted: &'a KeySet,
    pub(crate) host_key: Arc<SecretKey>,
}

impl Archives {
    /// Reads what earlier runs have proven; nothing is sent yet. An archive that cannot be used is a warning: the agent
    /// is of use without it.
    pub(crate) async fn open(parts: Parts<'_>, warnings: &mut Vec<Warning>) -> Self {
        let mut nets: HashMap<String, Arc<Net>> = HashMap::new();
        let (mut all, mut settings) = (Vec::new(), Vec::new());
        for setting in &parts.settings.archive {
            match open_one(setting, &parts, &mut nets).await {
                Ok((follow, net)) => {
                    all.push(Arc::new(follow));
                    settings.push((setting.clone(), net));
                }
                Err(failure) => warnings.push(Warning {
                    code: "archive".to_owned(),
                    text: failure.chain(),
                    hint: Some("see [[archive]] in the settings".to_owned()),
                }),
            }
        }
        Self { all, settings, tasks: Vec::new() }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The network of the first one, by the name that it was given.
    pub(crate) fn network(&self) -> Option<&str> {
        self.settings.first().map(|(_, net)| net.name.as_str())
    }

    /// Begins to follow them: full nodes are asked, and peers. Blobs are read through the resolver's site.
    pub(crate) fn start(
        &mut self,
        mesh: Option<&Mesh>,
        resolver: &Resolver,
        share: bool,
        state: &Path,
    ) -> Vec<Arc<dyn haulout_resolver::Archive>> {
        let mut readers: HashMap<ObjectId, (Client, Arc<dyn OtherWay>)> = HashMap::new();
        for (follow, (_, net)) in self.all.iter().zip(&self.settings) {
            let place = net.network.system_object;
            let (client, other) =
                readers.entry(place).or_insert_with(|| reader(net, resolver, share, state)).clone();
            follow.following.connect(client, Some(other));
        }
        for follow in &self.all {
            self.tasks.push(tokio::spawn(Arc::clone(follow).poll_for_ever()));
            self.tasks.push(tokio::spawn(Arc::clone(follow).open_for_ever()));
            if let Some(mesh) = mesh {
                let asking = Arc::clone(follow).ask_peers_for_ever(mesh.clone());
                self.tasks.push(tokio::spawn(asking));
            }
        }
        self.all.iter().map(|one| Arc::clone(one) as Arc<dyn haulout_resolver::Archive>).collect()
    }

    /// What peers may have.
    pub(crate) fn proofs(&self) -> Arc<dyn Proofs> {
        Arc::new(Known(self.all.clone()))
    }

    /// Judges by these trusted keys from now on, and those that the settings add.
    pub(crate) fn set_trusted(&self, trusted: &KeySet) {
        for (follow, (setting, _)) in self.all.iter().zip(&self.settings) {
            follow.source.set_policy(policy(setting, trusted));
        }
    }

    /// Asks nobody any more.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        self.stop();
    }
}

fn policy(setting: &Archive, trusted: &KeySet) -> Policy {
    if setting.everything {
        return Policy::All;
    }
    let mut keys: KeySet = trusted.iter().cloned().collect();
    // They were read when the settings were.
    setting.keys.iter().filter_map(|text| text.parse().ok()).for_each(|key| {
        keys.insert(key);
    });
    Policy::Signed(keys)
}

/// Network, object and package of a setting.
fn named(setting: &Archive) -> Outcome<(String, ObjectId, Option<ObjectId>)> {
    match &setting.name {
        ArchiveName::Object { id, package, network } => Ok((network.clone(), *id, *package)),
        ArchiveName::File { file } => {
            let archive = ArchiveFile::read(file)
                .context(|| format!("the archive file {} cannot be used", file.display()))?;
            Ok((archive.network, archive.archive, Some(archive.package)))
        }
    }
}

async fn open_one(
    setting: &Archive,
    parts: &Parts<'_>,
    nets: &mut HashMap<String, Arc<Net>>,
) -> Outcome<(Follow, Arc<Net>)> {
    let (name, id, package) = named(setting)?;
    let key = format!("{name} {:?}", setting.anchor);
    let net = match nets.get(&key) {
        Some(net) => Arc::clone(net),
        None => {
            let net =
                Arc::new(open_net(&name, setting.anchor.as_ref(), &parts.settings.state.dir)?);
            nets.insert(key, Arc::clone(&net));
            net
        }
    };
    let state = &parts.settings.state.dir;
    let tracker = ArchiveTracker::open(Arc::clone(&net.prover), id, package, Some(state)).await;
    let tracker = tracker.context(|| format!("archive {id} cannot be followed"))?;
    let tracker = Arc::new(tracker);
    let following = Arc::new(Following::new(Arc::clone(&tracker)));
    let beat = setting.beat_minutes.map(|minutes| Beat {
        every: Duration::from_secs(u64::from(minutes) * 60),
        tolerated: BEATS_MISSED,
    });
    let source = ArchiveSource::new(
        following.clone(),
        following.clone(),
        parts.store_dir.clone(),
        policy(setting, parts.trusted),
        Arc::clone(&parts.host_key),
    );
    let follow =
        Follow::new(tracker, Arc::clone(&net.prover), following, source, (Pace::default(), beat));
    Ok((follow, net))
}

fn open_net(name: &str, anchor: Option<&Anchor>, state: &Path) -> Outcome<Net> {
    let mut network = Network::load(name).map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::new(format!("the network {name} cannot be used")).because(error).hint(hint)
    })?;
    match anchor {
        // It was read when the settings were.
        Some(Anchor::Checkpoint(digest)) => {
            network.trust_anchor = base58_decode(digest).map(TrustAnchor::Checkpoint);
        }
        Some(Anchor::Committee(path)) => {
            network.trust_anchor = Some(TrustAnchor::Committee(path.clone()));
        }
        None => {}
    }
    let prover = Prover::new(&network, Some(state)).map_err(|error| {
        Failure::new(format!("nothing can be proven on {name}"))
            .because(error)
            .hint("`checkpoint` or `committee` in [[archive]] says what proofs start from")
    })?;
    Ok(Net { name: name.to_owned(), network, prover: Arc::new(prover) })
}

/// Reads from the whole site; and, for when nothing is known of the network's committee, from neighbours alone.
fn reader(
    net: &Net,
    resolver: &Resolver,
    share: bool,
    state: &Path,
) -> (Client, Arc<dyn OtherWay>) {
    let network = &net.network;
    let chain = Arc::new(SuiChain::new(network).with_memory(state));
    let direct = Client::new(chain).with_aggregators(network.aggregators.clone());
    let walrus = resolver.join_walrus(WalrusConfig {
        name: net.name.clone(),
        network: network.system_object.0.to_vec(),
        direct,
        cache: None,
        share,
    });
    let recent = Arc::new(RecentBytes::new(Arc::clone(walrus.client().source())));
    let tidied = Arc::downgrade(&recent);
    tokio::spawn(async move {
        while let Some(recent) = tidied.upgrade() {
            recent.forget_after(TIDY);
            drop(recent);
            tokio::time::sleep(TIDY).await;
        }
    });
    let client = walrus.client().clone().with_source(recent);
    (client, Arc::new(Neighbours(walrus.alone())))
}

/// Slivers from neighbours, without a committee.
#[derive(Debug)]
struct Neighbours(Alone);

impl OtherWay for Neighbours {
    fn read(
        &self,
        blob: BlobId,
        range: Range<u64>,
    ) -> haulout_depot::BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move { self.0.read_range(&blob, range).await })
    }
}

/// The proofs at hand.
struct Known(Vec<Arc<Follow>>);

impl Proofs for Known {
    fn proof(&self, question: ProofQuestion) -> Answer<Option<Bytes>> {
        let asked = self.0.iter().find(|one| one.tracker.id().0 == question.archive).cloned();
        Box::pin(async move { asked?.proof(question).await })
    }
}

impl haulout_resolver::Archive for Follow {
    fn path_info(&self, hash: HashPart) -> Answer<Result<Option<PathInfo>, String>> {
        let source = self.opened();
        Box::pin(async move { source.await?.path_info(&hash).await.map_err(said) })
    }

    fn nar(&self, key: NarKey) -> Answer<Result<Option<NarBytes>, String>> {
        let source = self.opened();
        Box::pin(async move {
            let nar = source.await?.nar(&key.path, &key.nar_hash).await.map_err(said)?;
            let wanted = nar.filter(|(size, _)| *size == key.nar_size);
            // The resolver checks NarHash of everything it gives.
            Ok(wanted.map(|(_, stream)| bytes_of(stream.root_only())))
        })
    }

    fn report(&self) -> SourceReport {
        self.status()
    }
}

fn bytes_of(nar: haulout_depot::NarStream) -> NarBytes {
    use futures_util::StreamExt;
    futures_util::stream::unfold(Some(nar), |nar| async {
        let mut nar = nar?;
        match nar.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(nar))),
            Ok(None) => None,
            Err(error) => Some((Err(said(error)), None)),
        }
    })
    .boxed()
}

/// An error with its causes, in one line.
fn said(error: haulout_depot::DepotError) -> String {
    chain(&error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
