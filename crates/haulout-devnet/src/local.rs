//! A whole network in one process: storage nodes, chain, full node, and how to command them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haulout_sui::network::{Network, TrustAnchor};
use redstuff::{ShardCount, ShardCountError};
use sui_crypto::ed25519::Ed25519PrivateKey;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::control::{self, Control};
use crate::storage::{NodesError, Seats, StorageNodes, even_weights};
use crate::sui::{Devnet, FullNode, FullNodeError, Setup};

/// How often the chain makes a checkpoint when nothing happens.
const TICK: Duration = Duration::from_secs(5);

/// Names of the files in a network's directory.
pub mod files {
    /// What `--network` takes.
    pub const NETWORK: &str = "network.toml";
    /// The nodes' certificates, for clients that verify them in the ordinary way.
    pub const CERTIFICATES: &str = "nodes.pem";
    /// The secret key of an account with SUI and WAL.
    pub const ACCOUNT: &str = "account.key";
    /// Sui's validators at the start, a trust anchor for machines that have no full node to ask.
    pub const COMMITTEE: &str = "committee.bcs";
    /// Where commands go: `host:port`.
    pub const CONTROL: &str = "control";
}

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where keys, slivers and the files of [`files`] go. Made if it is not there.
    pub dir: PathBuf,
    /// The number of shards.
    pub shards: u16,
    /// Shards of each node, if not as equal as possible.
    pub weights: Option<Vec<u16>>,
    /// The number of nodes, if there are no weights.
    pub nodes: usize,
    /// The address that storage nodes listen at, each on a free port.
    pub listen: IpAddr,
    /// Where the full node listens; port 0 is any.
    pub rpc: SocketAddr,
    /// Where commands are taken; port 0 is any.
    pub control: SocketAddr,
    /// What the chain's ids and keys derive from.
    pub seed: [u8; 32],
    /// The number of Sui's validators.
    pub validators: usize,
    /// Whether Sui's checkpoints commit to the objects they write.
    pub artifacts: bool,
}

impl Plan {
    /// 10 shards on 5 nodes, ports that are free.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let (dir, weights) = (dir.into(), None);
        Self {
            dir,
            shards: 10,
            weights,
            nodes: 5,
            listen: any.ip(),
            rpc: any,
            control: any,
            seed: [0; 32],
            validators: 4,
            artifacts: true,
        }
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum LocalNetError {
    /// The number of shards.
    #[error(transparent)]
    Shards(#[from] ShardCountError),
    /// The nodes.
    #[error(transparent)]
    Nodes(#[from] NodesError),
    /// The full node, or the devnet's own transaction.
    #[error(transparent)]
    FullNode(#[from] FullNodeError),
    /// The port for commands.
    #[error("cannot take commands at {address}")]
    Control {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A file of the network.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An account's key has no text form.
    #[error("cannot write down an account's key: {0}")]
    Key(String),
}

/// A running network.
#[derive(Debug)]
pub struct LocalNet {
    nodes: Arc<StorageNodes>,
    chain: Devnet,
    full_node: FullNode,
    network: Network,
    control: Control,
    ticking: JoinHandle<()>,
    /// One change of epoch at a time.
    changing: Arc<Mutex<()>>,
}

impl LocalNet {
    /// Starts all of it and writes the files.
    ///
    /// # Errors
    /// Something cannot be made, written or listened on; what was started is stopped.
    pub async fn start(plan: &Plan) -> Result<Self, LocalNetError> {
        let n = ShardCount::new(plan.shards)?;
        let weights = match &plan.weights {
            Some(weights) => weights.clone(),
            None => even_weights(n, plan.nodes)?,
        };
        let any_port = SocketAddr::new(plan.listen, 0);
        let seats = Seats::take_at(&plan.dir, &vec![any_port; weights.len()])?;
        let committee = seats.committee(1, n, &weights)?;
        let account = Ed25519PrivateKey::new(derived(&plan.seed));
        let accounts = vec![account.public_key().derive_address()];
        let setup = Setup {
            seed: plan.seed,
            validators: plan.validators,
            artifacts: plan.artifacts,
            accounts,
            ..Setup::default()
        };
        let chain = Devnet::new(&setup, &committee, now_ms);
        let nodes = Arc::new(seats.start(Arc::new(chain.clone()))?);
        let full_node = chain.serve(plan.rpc).await?;
        let network = describe(&chain, &full_node, &plan.dir);
        let changing = Arc::default();
        let commands = control::Commands {
            nodes: nodes.clone(),
            chain: chain.clone(),
            full_node: full_node.faults().clone(),
            changing: Arc::clone(&changing),
        };
        let failed = |source| LocalNetError::Control { address: plan.control, source };
        let control = Control::serve(plan.control, commands).await.map_err(failed)?;
        let secret =
            account.to_suiprivkey().map_err(|error| LocalNetError::Key(error.to_string()))?;
        // Validators have a BCS form.
        let validators = chain.validators(0).and_then(|committee| bcs::to_bytes(&committee).ok());
        for (name, secret, text) in [
            (files::NETWORK, false, network.to_toml().into_bytes()),
            (files::CERTIFICATES, false, pem(nodes.certificates()).into_bytes()),
            (files::ACCOUNT, true, format!("{secret}\n").into_bytes()),
            (files::COMMITTEE, false, validators.unwrap_or_default()),
            (files::CONTROL, false, format!("{}\n", control.address()).into_bytes()),
        ] {
            write(&plan.dir.join(name), secret, &text)?;
        }
        let ticking = tokio::spawn(tick(chain.clone()));
        Ok(Self { nodes, chain, full_node, network, control, ticking, changing })
    }

    /// The storage nodes.
    #[must_use]
    pub fn nodes(&self) -> &StorageNodes {
        &self.nodes
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Devnet {
        &self.chain
    }

    /// The full node.
    #[must_use]
    pub fn full_node(&self) -> &FullNode {
        &self.full_node
    }

    /// What a client has to know.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where commands are taken.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        self.control.address()
    }

    /// Begins the next Walrus epoch, lets the shards move, and finishes the change.
    ///
    /// # Errors
    /// The chain refuses.
    pub async fn next_epoch(&self) -> Result<u32, FullNodeError> {
        control::next_epoch(&self.chain, &self.nodes, &self.changing).await
    }

    /// Stops all of it; what was acknowledged is on disk.
    pub async fn stop(self) {
        self.ticking.abort();
        self.control.stop().await;
        self.full_node.stop().await;
        if let Some(nodes) = Arc::into_inner(self.nodes) {
            nodes.stop().await;
        }
    }
}

fn describe(chain: &Devnet, full_node: &FullNode, dir: &Path) -> Network {
    let id =
        |address: sui_sdk_types::Address| haulout_walrus::committee::ObjectId(address.into_inner());
    Network {
        name: dir.join(files::NETWORK).display().to_string(),
        rpc_urls: vec![full_node.url()],
        system_object: id(chain.system_object()),
        staking_object: id(chain.staking_object()),
        aggregators: Vec::new(),
        walrus_package: Some(id(chain.walrus_package())),
        wal_package: Some(id(chain.wal_package())),
        trust_anchor: Some(TrustAnchor::Checkpoint(chain.chain_id().into_inner())),
    }
}

async fn tick(chain: Devnet) {
    loop {
        tokio::time::sleep(TICK).await;
        chain.tick();
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The secret of the account: not the seed, which others may see in a command line.
fn derived(seed: &[u8; 32]) -> [u8; 32] {
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        &[b"haulout devnet account", &seed[..]].concat(),
    );
    let mut secret = [0; 32];
    secret.copy_from_slice(digest.as_ref());
    secret
}

fn pem(certificates: impl Iterator<Item = Vec<u8>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = data_encoding::BASE64.encode(&certificate);
        for line in base64.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn write(path: &Path, secret: bool, text: &[u8]) -> Result<(), LocalNetError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |source| LocalNetError::File { path: path.to_owned(), source };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(if secret { 0o600 } else { 0o644 });
    options.open(path).and_then(|mut file| file.write_all(text)).map_err(failed)
}
