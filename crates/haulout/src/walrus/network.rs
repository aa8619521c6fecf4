//! Which network is meant: a preset, a file that names a network on Sui, or a file with a committee.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use haulout_sui::chain::SuiChain;
use haulout_sui::network::Network as SuiNetwork;
use haulout_sui::tx::{Confirm, Estimate, KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::limits::COMMITTEE_FILE_BYTES_MAX;
use haulout_walrus::{ChainReader, Client, CommitteeFile, Registrar, StaticChain};

use super::files;
use crate::error::{Context, Failure, Outcome};

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
    let text =
        files::read(path, COMMITTEE_FILE_BYTES_MAX, "the network file").map_err(|failure| {
            failure.hint("give the path of a network file, or one of: mainnet, testnet")
        })?;
    let text = String::from_utf8_lossy(&text);
    if !CommitteeFile::is_meant(&text) {
        return Ok(None);
    }
    let file = CommitteeFile::parse(&text).map_err(|error| {
        Failure::new(format!("the committee file {} cannot be used", path.display()))
            .because(error)
            .hint(
                "keys: epoch, n_shards, aggregators, and [[nodes]] with node_id, name, address, \
                 network_public_key, bls_public_key, shards",
            )
    })?;
    let identity = file.identity();
    let client = Client::new(Arc::new(StaticChain::new(file.committee)));
    let client = client.with_aggregators(file.aggregators);
    Ok(Some(Network { client, identity, sui: None }))
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
