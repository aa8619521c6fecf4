//! Which network is meant: a preset, a file that names a network on Sui, or a file with a committee.

use std::path::Path;
use std::sync::Arc;

use haulout_sui::chain::SuiChain;
use haulout_sui::network::Network as SuiNetwork;
use haulout_sui::tx::{SuiRegistrar, Wallet};
use haulout_walrus::limits::COMMITTEE_FILE_BYTES_MAX;
use haulout_walrus::{ChainReader, Client, CommitteeFile, Registrar, StaticChain};

use super::files;
use crate::error::{Failure, Outcome};
use crate::wallet::WalletArgs;

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
        Self::with_state(name, None)
    }

    /// The same for an agent, which knows the committee of its last run.
    pub(crate) fn remembered(name: &str, state: &Path) -> Outcome<Self> {
        Self::with_state(name, Some(state))
    }

    fn with_state(name: &str, state: Option<&Path>) -> Outcome<Self> {
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
        let chain = SuiChain::new(&sui);
        let chain = Arc::new(match state {
            Some(state) => chain.with_memory(state),
            None => chain,
        });
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
    /// sent.
    pub(super) fn registrar(
        &self,
        wallet: &WalletArgs,
        state: &Path,
    ) -> Outcome<Box<dyn Registrar>> {
        let Some(chain) = &self.sui else {
            return Err(Failure::new(
                "this network is a committee in a file: nothing can be registered",
            )
            .hint("name a network on Sui with --network: mainnet, testnet or a file"));
        };
        let signer = wallet.signer(&format!("storing on {}", chain.network().name))?;
        let wallet = Wallet::new(chain.clone(), signer, Some(state), wallet.confirm());
        Ok(Box::new(SuiRegistrar::new(Arc::new(wallet))))
    }
}
