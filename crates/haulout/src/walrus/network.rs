//! Which network is meant: a preset, a file that names a network on Sui, or a file with a committee.

use std::io::{self, BufRead, IsTerminal, Read};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use haulout_sui::chain::SuiChain;
use haulout_sui::network::{FILE_BYTES_MAX, Network as SuiNetwork};
use haulout_sui::tx::{Confirm, Estimate, KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::{
    ChainReader, Client, Committee, ObjectId, Registrar, StaticChain, StorageNode, is_base_url,
};
use redstuff::{ShardCount, ShardIndex};
use serde::Deserialize;

use super::files;
use crate::error::{Context, Failure, Outcome};

/// A committee in a file: for networks without a chain that can be reached.
///
/// ```toml
/// epoch = 1
/// n_shards = 10
/// aggregators = []            # optional
///
/// [[nodes]]
/// node_id = "0x…"
/// name = "one"
/// address = "127.0.0.1:9185"
/// network_public_key = "…"    # base64, 33 bytes
/// bls_public_key = "…"        # base64, 48 bytes
/// shards = [0, 1, 2]
/// ```
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitteeFile {
    epoch: u32,
    n_shards: NonZeroU16,
    #[serde(default)]
    aggregators: Vec<String>,
    nodes: Vec<NodeEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    node_id: ObjectId,
    #[serde(default)]
    name: String,
    address: String,
    network_public_key: String,
    bls_public_key: String,
    shards: Vec<u16>,
}

/// A network, ready to be used.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) client: Client,
    /// What tells the network from all others: its System object, or the committee's members.
    pub(crate) identity: Vec<u8>,
    /// The chain, if the network is on one.
    sui: Option<Arc<SuiChain>>,
}

impl Network {
    /// The network that `--network` names.
    pub(crate) fn load(name: &str) -> Outcome<Self> {
        if SuiNetwork::preset(name).is_none()
            && let Some(committee) = committee_file(Path::new(name))?
        {
            return Ok(committee);
        }
        let sui = SuiNetwork::load(name).map_err(|error| {
            let hint = error.hint().to_owned();
            Failure::new(format!("the Walrus network {name} cannot be used"))
                .because(error)
                .hint(hint)
        })?;
        let chain = Arc::new(SuiChain::new(&sui));
        let reader: Arc<dyn ChainReader> = chain.clone();
        let client = Client::new(reader).with_aggregators(sui.aggregators);
        Ok(Self { client, identity: sui.system_object.0.to_vec(), sui: Some(chain) })
    }
}

/// The committee in a file; `None` if the file is of another kind.
fn committee_file(path: &Path) -> Outcome<Option<Network>> {
    let shown = path.display();
    let text = files::read(path, FILE_BYTES_MAX, "the network file").map_err(|failure| {
        failure.hint("give the path of a network file, or one of: mainnet, testnet")
    })?;
    let text = String::from_utf8_lossy(&text);
    let is_committee = text.lines().any(|line| line.trim() == "[[nodes]]");
    if !is_committee {
        return Ok(None);
    }
    let file: CommitteeFile = toml::from_str(&text).map_err(|error| {
        Failure::new(format!("{shown} is not a committee file")).because(error).hint(
            "keys: epoch, n_shards, aggregators, and [[nodes]] with node_id, name, address, \
             network_public_key, bls_public_key, shards",
        )
    })?;
    let bad = |what: String| Failure::new(format!("{shown}: {what}"));
    if let Some(url) = file.aggregators.iter().find(|url| !is_base_url(url)) {
        return Err(bad(format!("{url:?} is not an http(s) URL")));
    }
    let n = ShardCount::new(file.n_shards.get()).map_err(|error| bad(error.to_string()))?;
    let nodes = file.nodes.into_iter().map(|node| node_of(node).map_err(&bad));
    let committee = Committee::new(file.epoch, n, nodes.collect::<Outcome<_>>()?);
    let committee = committee.map_err(|error| bad(error.to_string()))?;
    let mut identity = n.get().to_be_bytes().to_vec();
    committee.members.iter().for_each(|member| identity.extend_from_slice(&member.node_id.0));
    let client = Client::new(Arc::new(StaticChain::new(committee)));
    let client = client.with_aggregators(file.aggregators);
    Ok(Some(Network { client, identity, sui: None }))
}

fn node_of(entry: NodeEntry) -> Result<StorageNode, String> {
    let bytes = |text: &str, key: &str| {
        let decoded = BASE64.decode(text.as_bytes());
        decoded.map_err(|error| format!("{key} of {}: {error}", entry.node_id))
    };
    let bls = bytes(&entry.bls_public_key, "bls_public_key")?;
    Ok(StorageNode {
        node_id: entry.node_id,
        network_public_key: bytes(&entry.network_public_key, "network_public_key")?,
        bls_public_key: bls
            .try_into()
            .map_err(|_| format!("bls_public_key of {} does not have 48 bytes", entry.node_id))?,
        name: entry.name,
        address: entry.address,
        shards: entry.shards.into_iter().map(ShardIndex).collect(),
    })
}

impl Network {
    /// What registers and certifies blobs, in the name of a wallet. `state` is where it notes what it
    /// sent; with `yes` it does not ask.
    pub(super) fn registrar(
        &self,
        wallet: Option<&Path>,
        state: &Path,
        yes: bool,
    ) -> Outcome<Box<dyn Registrar>> {
        let Some(chain) = &self.sui else {
            return Err(Failure::new(
                "this network is a committee in a file: nothing can be registered",
            )
            .hint("name a network on Sui with --network: mainnet, testnet or a file"));
        };
        let wallet = wallet.ok_or_else(|| {
            Failure::new(format!("storing on {} needs a wallet that pays", chain.network().name))
                .hint("--wallet FILE (a suiprivkey, a PEM file or a sui.keystore), or HAULOUT_SUI_WALLET")
        })?;
        let signer = Signer::open(&KeySource::File(wallet.to_owned()))
            .context(|| format!("the wallet {} cannot be used", wallet.display()))?;
        let confirm: Confirm = Arc::new(move |estimate| yes || agrees(estimate));
        let wallet = Wallet::new(chain.clone(), signer, Some(state), confirm);
        Ok(Box::new(SuiRegistrar::new(Arc::new(wallet))))
    }
}

/// Shows what a transaction costs and asks; nobody to ask means no.
fn agrees(estimate: &Estimate) -> bool {
    eprintln!(
        "{}: at most {} MIST of gas and {} FROST, from {}",
        estimate.what, estimate.budget, estimate.wal, estimate.account
    );
    if !io::stdin().is_terminal() {
        eprintln!("nobody is there to agree; --yes agrees beforehand");
        return false;
    }
    eprint!("send it? [y/N] ");
    let mut answer = String::new();
    // The longest sensible answer is "yes" and a newline.
    let read = io::stdin().lock().take(16).read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
