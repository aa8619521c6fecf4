//! From what the command line says to an archive.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haulout_depot::{Blobs, DirDepot, Reader, Registry};
use haulout_onchain::{ArchiveFile, OnChain, Publisher, RecentBytes};
use haulout_sui::Network;
use haulout_sui::archive::ArchiveTracker;
use haulout_sui::chain::SuiChain;
use haulout_sui::object_id::address;
use haulout_sui::prover::Prover;
use haulout_sui::tx::{Estimate, KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::{Client, Direct};

use super::args::WalletArgs;
use crate::error::{Context, Failure, Outcome};

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
    let state = state_dir();
    let prover = Prover::new(&network, Some(&state)).map_err(|error| {
        Failure::new(opening()).because(error).hint(
            "a network file with [trust_anchor] checkpoint = \"…\" says what proofs start from",
        )
    })?;
    let tracker =
        ArchiveTracker::open(Arc::new(prover), file.archive, Some(file.package), Some(&state));
    let tracker = Arc::new(tracker.await.context(opening)?);
    let paying = wallet.filter(|args| args.wallet.is_some());
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
            return Err(Failure::new(format!(
                "publishing on {} needs a wallet that pays",
                network.name
            ))
            .hint(
                "--wallet FILE (a suiprivkey, a PEM file or a sui.keystore), or HAULOUT_SUI_WALLET",
            ));
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
        reader.context(|| "cannot read the archive's index".to_owned())
    }
}

/// A network by name or file.
pub(super) fn network(name: &str) -> Outcome<Network> {
    Network::load(name).map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::new(format!("the network {name} cannot be used")).because(error).hint(hint)
    })
}

/// The wallet that pays on a network.
pub(super) fn wallet(network: &Network, args: &WalletArgs, state: &Path) -> Outcome<Arc<Wallet>> {
    let file = args.wallet.as_deref().ok_or_else(|| {
        Failure::new(format!("this needs a wallet that pays on {}", network.name)).hint(
            "--wallet FILE (a suiprivkey, a PEM file or a sui.keystore), or HAULOUT_SUI_WALLET",
        )
    })?;
    let signer = Signer::open(&KeySource::File(file.to_owned()))
        .context(|| format!("the wallet {} cannot be used", file.display()))?;
    let chain = SuiChain::new(network).with_owner(address(signer.account()));
    let yes = args.yes;
    let confirm = Arc::new(move |estimate: &Estimate| yes || agrees(estimate));
    Ok(Arc::new(Wallet::new(Arc::new(chain), signer, Some(state), confirm)))
}

/// Shows what a transaction costs and asks; nobody to ask means no.
fn agrees(estimate: &Estimate) -> bool {
    let coins = |amount: u64| amount as f64 / 1e9;
    eprintln!(
        "{}: at most {:.4} SUI of gas and {:.4} WAL, from {}",
        estimate.what,
        coins(estimate.budget),
        coins(estimate.wal),
        estimate.account
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

/// Where proofs, journals and packs in the making are kept between runs of commands.
pub(super) fn state_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let base =
        std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    base.or_else(home).unwrap_or_else(std::env::temp_dir).join("haulout")
}
