//! Who pays: the account that signs transactions, and the person who agrees to them.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use haulout_sui::ObjectId;
use haulout_sui::tx::{Confirm, Estimate, KeySource, Signer};

use crate::error::{Context, Failure, Outcome};

/// The variable with a key itself, for machines that get their secrets that way.
const KEY_VARIABLE: &str = "HAULOUT_SUI_KEY";

/// Who pays.
#[derive(Debug, Args)]
pub(crate) struct WalletArgs {
    /// The wallet that pays (a suiprivkey, a PEM file or a sui.keystore); the key itself may be in
    /// the variable HAULOUT_SUI_KEY instead
    #[arg(long, value_name = "FILE", env = "HAULOUT_SUI_WALLET", conflicts_with = "signer")]
    pub(crate) wallet: Option<PathBuf>,
    /// A shell command that signs instead: it gets the transaction on standard input (BCS as
    /// base64, one line) and writes the signature as the chain takes it (base64)
    #[arg(long, value_name = "COMMAND", env = "HAULOUT_SUI_SIGNER", requires = "signer_account")]
    pub(crate) signer: Option<String>,
    /// The account that --signer signs for, 0x…
    #[arg(
        id = "signer_account",
        long = "signer-account",
        value_name = "ADDRESS",
        env = "HAULOUT_SUI_ACCOUNT"
    )]
    pub(crate) account: Option<ObjectId>,
    /// Send transactions without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

impl WalletArgs {
    fn source(&self) -> Option<KeySource> {
        match (&self.signer, self.account, &self.wallet) {
            (Some(command), Some(account), _) => {
                let argv = ["sh", "-c", command].map(str::to_owned).to_vec();
                Some(KeySource::Command { argv, account })
            }
            (_, _, Some(file)) => Some(KeySource::File(file.clone())),
            _ => {
                std::env::var_os(KEY_VARIABLE).map(|_| KeySource::Variable(KEY_VARIABLE.to_owned()))
            }
        }
    }

    /// Whether anybody is named who pays.
    pub(crate) fn is_given(&self) -> bool {
        self.source().is_some()
    }

    /// Whoever signs. `doing` says for what, as in "publishing on mainnet".
    pub(crate) fn signer(&self, doing: &str) -> Outcome<Signer> {
        let source = self.source().ok_or_else(|| needed(doing))?;
        let shown = match &source {
            KeySource::File(path) => path.display().to_string(),
            KeySource::Variable(name) => format!("in {name}"),
            KeySource::Command { .. } => "behind --signer".to_owned(),
        };
        Signer::open(&source).context(|| format!("the wallet {shown} cannot be used"))
    }

    /// Shows what each transaction costs and asks, unless that was agreed to beforehand.
    pub(crate) fn confirm(&self) -> Confirm {
        let all = AtomicBool::new(self.yes);
        Arc::new(move |estimate: &Estimate| match all.load(Ordering::Relaxed) {
            true => true,
            false => agrees(estimate, &all),
        })
    }
}

/// Nobody is named who pays.
pub(crate) fn needed(doing: &str) -> Failure {
    Failure::new(format!("{doing} needs a wallet that pays")).hint(
        "--wallet FILE (a suiprivkey, a PEM file or a sui.keystore), HAULOUT_SUI_KEY with the key \
         itself, or --signer COMMAND",
    )
}

/// Shows what a transaction costs and asks; nobody to ask means no.
fn agrees(estimate: &Estimate, all: &AtomicBool) -> bool {
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
    eprint!("send it? [y: yes, a: yes to all of this command, N] ");
    let mut answer = String::new();
    // The longest sensible answer is "yes" and a newline.
    if io::stdin().lock().take(16).read_line(&mut answer).is_err() {
        return false;
    }
    match answer.trim() {
        "a" | "A" | "all" => {
            all.store(true, Ordering::Relaxed);
            true
        }
        answer => matches!(answer, "y" | "Y" | "yes"),
    }
}

/// Where proofs, journals and packs in the making are kept between runs of commands. Never in a
/// directory that others write to: what is there is believed.
pub(crate) fn state_dir() -> Outcome<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    let base = absolute("XDG_STATE_HOME").or_else(home);
    base.map(|base| base.join("haulout")).ok_or_else(|| {
        Failure::new("there is no place for what must be remembered between runs")
            .hint("set HOME or XDG_STATE_HOME")
    })
}
