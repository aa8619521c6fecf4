//! An account at work: what is asked of it, and one transaction after the other from the first try to
//! its end.

pub(super) mod coins;
pub(super) mod prepare;
mod send;

use std::{path::Path, sync::Arc};

use sui_sdk_types::{Address, Object, ObjectData};
use tokio::sync::Mutex;

use super::{
    Ptb, Signer, TxError,
    journal::{Entry, Journal},
};
use crate::{
    ObjectId,
    chain::SuiChain,
    object_id::object_id,
    rpc::{Gas, Node},
};

/// How often a transaction is built anew because an object or a price had changed.
const TRIES: u32 = 4;

/// What a transaction will cost, for whoever has to say yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// What it is for.
    pub what: String,
    /// The account that pays.
    pub account: ObjectId,
    /// Gas, as tried.
    pub gas: Gas,
    /// The most it can cost, MIST.
    pub budget: u64,
    /// What Walrus takes, FROST.
    pub wal: u64,
}

/// Asks whether a transaction may be sent.
pub type Confirm = Arc<dyn Fn(&Estimate) -> bool + Send + Sync>;

/// What to put into a transaction.
type Build<'a> = &'a (dyn Fn(&mut Ptb<'_>) -> Result<(), TxError> + Send + Sync);

/// A transaction to make.
pub struct Request<'a> {
    /// What for. Two requests with the same text are the same transaction.
    pub purpose: String,
    /// FROST that Walrus will take from the account.
    pub wal: u64,
    /// Objects that are used, and whether they are changed (which matters for shared ones).
    pub objects: Vec<(ObjectId, bool)>,
    /// Puts the calls in.
    pub build: Build<'a>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

/// A transaction that is final.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its digest, in base58.
    pub digest: String,
    /// The checkpoint it is in.
    pub checkpoint: u64,
    /// Objects it made, as they are now; packages included.
    pub created: Vec<Object>,
    /// What it cost, MIST.
    pub gas: Gas,
}

impl Outcome {
    /// The objects made of a type, by module and name.
    pub fn created_of<'a>(
        &'a self,
        module: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Object> {
        self.created.iter().filter(move |object| {
            object.as_struct().is_some_and(|value| {
                let tag = value.object_type();
                tag.module().as_str() == module && tag.name().as_str() == name
            })
        })
    }

    /// The id of the package made.
    #[must_use]
    pub fn package(&self) -> Option<ObjectId> {
        self.created.iter().find_map(|object| match object.data() {
            ObjectData::Package(package) => Some(object_id(package.id)),
            ObjectData::Struct(_) => None,
        })
    }
}

/// An account that makes transactions, one at a time.
pub struct Wallet {
    chain: Arc<SuiChain>,
    signer: Signer,
    journal: Journal,
    confirm: Confirm,
    busy: Mutex<()>,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Wallet {
    /// `state` is where the journal is kept; without it, a crash while a transaction is
    /// under way may lead to a second one.
    #[must_use]
    pub fn new(
        chain: Arc<SuiChain>,
        signer: Signer,
        state: Option<&Path>,
        confirm: Confirm,
    ) -> Self {
        let journal = Journal::new(state, signer.address());
        Self { chain, signer, journal, confirm, busy: Mutex::new(()) }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> ObjectId {
        self.signer.account()
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<SuiChain> {
        &self.chain
    }

    /// What a package that uses Walrus' types has to name as its dependencies: Walrus' current
    /// package and all that it is linked with.
    ///
    /// # Errors
    /// The package cannot be read.
    pub async fn walrus_dependencies(&self) -> Result<Vec<ObjectId>, TxError> {
        let package = self.chain.system(false).await?.package;
        let read = |node: Node| async move { node.read(package).await };
        let object = self.chain.nodes().first("read Walrus' package", read).await?;
        let ObjectData::Package(walrus) = object.data() else {
            return Err(TxError::Build(format!("{package} is not a package")));
        };
        let mut all = vec![package];
        all.extend(walrus.linkage_table.values().map(|info| object_id(info.upgraded_id)));
        all.extend(self.chain.network().wal_package);
        for framework in [Address::from_static("0x1"), Address::TWO] {
            all.push(object_id(framework));
        }
        all.sort_by_key(|id| id.0);
        all.dedup();
        Ok(all)
    }

    /// What the transaction would cost. Nothing is sent.
    ///
    /// # Errors
    /// It cannot be built, paid for, or would fail.
    pub async fn estimate(&self, request: &Request<'_>) -> Result<Estimate, TxError> {
        self.prepare(request).await.map(|(_, estimate)| estimate)
    }

    /// Makes the transaction: builds and tries it, asks for confirmation, signs, writes it
    /// to the journal, sends it, and waits until it is in a checkpoint. If the journal has
    /// one for the same purpose, that one is seen to its end instead.
    ///
    /// # Errors
    /// See [`TxError`]. After [`TxError::Unfinished`] the same request goes on.
    pub async fn run(&self, request: &Request<'_>) -> Result<Outcome, TxError> {
        let _one_at_a_time = self.busy.lock().await;
        if let Some(entry) = self.journal.find(&request.purpose)?
            && let Some(outcome) = self.resume(&entry).await?
        {
            return Ok(outcome);
        }
        let mut confirmed = None;
        let mut attempt = 1;
        loop {
            let (transaction, estimate) = self.prepare(request).await?;
            let asked = confirmed.is_some_and(|budget| estimate.budget <= budget);
            if !asked && !(self.confirm)(&estimate) {
                return Err(TxError::Declined(request.purpose.clone()));
            }
            confirmed = Some(confirmed.unwrap_or_default().max(estimate.budget));
            let signature = self.signer.sign(&transaction).await?;
            let entry = Entry {
                purpose: request.purpose.clone(),
                transaction,
                signature: signature.to_bytes(),
            };
            self.journal.keep(&entry)?;
            match self.send(&entry, signature).await {
                Err(TxError::Refused { source, .. })
                    if attempt < TRIES && send::changed(&source) =>
                {
                    tracing::debug!(purpose = %request.purpose, %source, "building it anew");
                    attempt += 1;
                    tokio::time::sleep(send::FINALITY_STEP * attempt).await;
                }
                outcome => return outcome,
            }
        }
    }
}
