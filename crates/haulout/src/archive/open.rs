//! From what the command line says to an archive.

use std::path::Path;
use std::sync::Arc;

use haulout_depot::{Blobs, DirDepot, Reader, Registry};
use haulout_onchain::{ArchiveFile, OnChain, Publisher, RecentBytes};
use haulout_sui::Network;
use haulout_sui::archive::ArchiveTracker;
use haulout_sui::chain::SuiChain;
use haulout_sui::object_id::address;
use haulout_sui::prover::Prover;
use haulout_sui::tx::{SuiRegistrar, Wallet};
use haulout_walrus::{Client, Direct};

use crate::error::{Context, Failure, Outcome};
use crate::wallet::{WalletArgs, needed, state_dir};

/// An archive that was opened.
pub(super) struct Opened {
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) registry: Arc<dyn Registry>,
}

/// Opens the archive at a place. With a wallet it can be written.
pub(super) async fn open(place: &Path, wallet: Option<&WalletArgs>) -> Outcome<Opened> {
    let opening = || format!("cannot open the archive {}", place.display());
    if place.is_dir() {
        let depot = Arc::new(DirDepot::open(place).context(opening)?);
        return Ok(Opened { blobs: depot.clone(), registry: depot });
    }
    let file = ArchiveFile::read(place).context(opening).map_err(|failure| {
        failure.hint("give a file that `haulout archive init` wrote, or a directory for rehearsals")
    })?;
    let network = network(&file.network)?;
    let state = state_dir()?;
    let prover = Prover::new(&network, Some(&state))
        .map_err(|error| Failure::new(opening()).because(error).hint(no_anchor(&network)))?;
    let tracker =
        ArchiveTracker::open(Arc::new(prover), file.archive, Some(file.package), Some(&state));
    let tracker = Arc::new(tracker.await.context(opening)?);
    let paying = wallet.filter(|args| args.is_given());
    let publisher = match (paying, file.publisher_cap) {
        (Some(args), Some(cap)) => Some(Publisher {
            registrar: SuiRegistrar::new(self::wallet(&network, args, &state)?),
            package: file.package,
            cap,
            journals: Some(state.join("blobs")),
        }),
        (Some(_), None) => {
            return Err(Failure::new(format!("{} has no publisher_cap", place.display()))
                .hint("the owner adds a publisher; put the id of the cap into the file"));
        }
        (None, _) if wallet.is_some() => {
            return Err(needed(&format!("publishing on {}", network.name)));
        }
        (None, _) => None,
    };
    let chain = match &publisher {
        Some(publisher) => Arc::clone(publisher.registrar.wallet().chain()),
        None => Arc::new(SuiChain::new(&network)),
    };
    let client = Client::new(chain.clone())
        .with_aggregators(network.aggregators)
        .with_source(Arc::new(RecentBytes::new(Arc::new(Direct))));
    let depot = Arc::new(OnChain::new(client, chain, tracker, publisher));
    Ok(Opened { blobs: depot.clone(), registry: depot })
}

impl Opened {
    /// The archive, open for reading.
    pub(super) async fn reader(&self) -> Outcome<Reader> {
        let state =
            self.registry.state().await.context(|| "cannot read the archive's state".to_owned())?;
        let reader = Reader::open(Arc::clone(&self.blobs), state).await;
        reader
            .context(|| "cannot read the archive's index".to_owned())
            .map_err(|failure| failure.hint("`haulout archive verify` says what is left of it"))
    }

    /// What is left of the archive, for those who look after it; says so if that is not all.
    pub(super) async fn left(&self) -> Outcome<Reader> {
        let state =
            self.registry.state().await.context(|| "cannot read the archive's state".to_owned())?;
        let epoch = self.registry.epoch().await.context(|| "cannot read the epoch".to_owned())?;
        let reader = Reader::open_left(Arc::clone(&self.blobs), state, epoch).await;
        let reader = reader.context(|| "cannot read the archive's index".to_owned())?;
        if !reader.lost().is_empty() {
            eprintln!(
                "{} levels have ended and are no longer stored; publishing again, or `archive merge`, leaves them out",
                reader.lost().len()
            );
        }
        Ok(reader)
    }
}

/// A network by name or file.
pub(super) fn network(name: &str) -> Outcome<Network> {
    Network::load(name).map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::new(format!("the network {name} cannot be used")).because(error).hint(hint)
    })
}

/// How to come by a trust anchor.
pub(super) fn no_anchor(network: &Network) -> String {
    format!(
        "`haulout archive anchor --network {} > FILE` writes a network file with one, to be compared with a \
         source that you trust",
        network.name
    )
}

/// The wallet that pays on a network.
pub(super) fn wallet(network: &Network, args: &WalletArgs, state: &Path) -> Outcome<Arc<Wallet>> {
    let signer = args.signer(&format!("publishing on {}", network.name))?;
    let chain = SuiChain::new(network).with_owner(address(signer.account()));
    Ok(Arc::new(Wallet::new(Arc::new(chain), signer, Some(state), args.confirm())))
}
