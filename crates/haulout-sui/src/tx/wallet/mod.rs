//! An account at work: coins, gas, confirmation, journal, sending, waiting.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use sui_rpc::proto::sui::rpc::v2;
use sui_sdk_types::{
    Address, Digest, Object, ObjectData, ObjectOut, Owner, Transaction, TransactionEffects,
    TypeTag, UserSignature,
};
use sui_transaction_builder::{ObjectInput, TransactionBuilder};
use tokio::sync::Mutex;

use super::{
    Ptb, Signer, TxError,
    calls::{coin_type, sui_type},
    journal::{Entry, Journal},
};
use crate::{
    ObjectId,
    chain::{SuiChain, SystemView},
    object_id::{address, object_id},
    rpc::{Fault, Gas, Node, RpcError},
    walrus_types::{Coin, decode},
};

/// Gas coins put into one transaction: the chain takes 256.
const GAS_COINS_MAX: usize = 64;
/// WAL coins merged in one transaction.
const WAL_COINS_MAX: usize = 128;
/// The most a transaction may cost while it is tried, MIST.
const TRY_BUDGET: u64 = 5_000_000_000;
/// The least a budget may be, in units of the gas price.
const BUDGET_UNITS_MIN: u64 = 2_000;
/// How often a transaction is built anew because an object or a price had changed.
const TRIES: u32 = 4;
/// How long the end of a sent transaction is waited for.
const FINALITY_WAIT: Duration = Duration::from_secs(90);
const FINALITY_STEP: Duration = Duration::from_millis(300);

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
                Err(TxError::Refused { source, .. }) if attempt < TRIES && changed(&source) => {
                    tracing::debug!(purpose = %request.purpose, %source, "building it anew");
                    attempt += 1;
                    tokio::time::sleep(FINALITY_STEP * attempt).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sees a transaction from the journal to its end; `None` if it can no longer be
    /// executed, so that another may be made.
    async fn resume(&self, entry: &Entry) -> Result<Option<Outcome>, TxError> {
        tracing::info!(purpose = %entry.purpose, "going on with a transaction signed earlier");
        let Ok(signature) = UserSignature::from_bytes(&entry.signature) else {
            self.journal.forget(&entry.purpose)?;
            return Ok(None);
        };
        match self.send(entry, signature).await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(TxError::Refused { source, .. }) => {
                tracing::info!(%source, "it was never executed, and cannot be any more");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends and waits. An entry leaves the journal when its end is known.
    async fn send(&self, entry: &Entry, signature: UserSignature) -> Result<Outcome, TxError> {
        let digest = entry.transaction.digest();
        let what = entry.purpose.clone();
        let signatures = [signature];
        let send = |node: Node| {
            let signatures = &signatures;
            async move {
                // In this order: if its coins have moved on and the same node does not know
                // it afterwards, something else used them, and it can never be executed.
                let spent = coins_spent(&node, &entry.transaction).await?;
                match node.transaction(&digest).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.fault == Fault::NotFound && spent => Err(RpcError::new(
                        Fault::Refused,
                        node.url(),
                        "its gas coins have another version by now",
                    )),
                    Err(error) if error.fault == Fault::NotFound => {
                        node.execute(&entry.transaction, signatures).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let sent = self.chain.nodes().first("send the transaction", send).await;
        match self.finality(&digest, sent.is_ok()).await {
            Ok(outcome) => {
                self.journal.forget(&entry.purpose)?;
                outcome.map_err(|source| TxError::Refused { what, source })
            }
            Err(seen) => match sent {
                // A node that knows the transaction has it in no checkpoint yet, or none
                // answers: nothing is certain.
                Ok(()) => {
                    Err(TxError::Unfinished { what, digest: digest.to_string(), source: seen })
                }
                Err(source) if source.fault == Fault::Refused && seen.fault == Fault::NotFound => {
                    self.journal.forget(&entry.purpose)?;
                    Err(TxError::Refused { what, source })
                }
                Err(source) => {
                    Err(TxError::Unfinished { what, digest: digest.to_string(), source })
                }
            },
        }
    }

    /// Waits until the transaction is in a checkpoint. Inner error: it is, and it failed.
    async fn finality(
        &self,
        digest: &Digest,
        patient: bool,
    ) -> Result<Result<Outcome, RpcError>, RpcError> {
        let started = tokio::time::Instant::now();
        loop {
            let ask = |node: Node| async move { node.executed(digest).await };
            let error = match self.chain.nodes().first("find the transaction", ask).await {
                Ok(executed) => match executed.checkpoint {
                    Some(checkpoint) => return self.outcome(digest, checkpoint, executed).await,
                    None => RpcError::new(Fault::Unavailable, "chain", "in no checkpoint yet"),
                },
                Err(error) => error,
            };
            if !patient || started.elapsed() > FINALITY_WAIT {
                return Err(error);
            }
            tokio::time::sleep(FINALITY_STEP).await;
        }
    }

    async fn outcome(
        &self,
        digest: &Digest,
        checkpoint: u64,
        executed: crate::rpc::Executed,
    ) -> Result<Result<Outcome, RpcError>, RpcError> {
        if let Some(failure) = executed.failure {
            return Ok(Err(failure));
        }
        let ids = created_ids(&executed.effects)
            .map_err(|reason| RpcError::new(Fault::Untrusted, "effects", reason))?;
        let ids = &ids;
        let read = |node: Node| async move { node.read_all(ids).await };
        let created = self.chain.nodes().first("read what was made", read).await?;
        Ok(Ok(Outcome {
            digest: digest.to_string(),
            checkpoint,
            created: created.into_iter().flatten().collect(),
            gas: executed.gas,
        }))
    }

    /// Builds a transaction that would succeed, and what it costs.
    async fn prepare(&self, request: &Request<'_>) -> Result<(Transaction, Estimate), TxError> {
        // Prices and the package to call may have changed since they were last read.
        let view = self.chain.system(true).await?;
        let prepare = |node: Node| {
            let view = view.clone();
            async move {
                match self.prepare_with(&node, &view, request).await {
                    // What the account or the request lacks, no other node can mend.
                    Err(TxError::Rpc(error)) => Err(error),
                    outcome => Ok(outcome),
                }
            }
        };
        match self.chain.nodes().first("prepare the transaction", prepare).await {
            Ok(outcome) => outcome,
            Err(source) if source.fault == Fault::Refused => {
                Err(TxError::Refused { what: request.purpose.clone(), source })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn prepare_with(
        &self,
        node: &Node,
        view: &SystemView,
        request: &Request<'_>,
    ) -> Result<(Transaction, Estimate), TxError> {
        let price = node.epoch(None).await?.gas_price.unwrap_or(1_000);
        let gas = self.gas_coins(node).await?;
        let wal = if request.wal > 0 {
            self.wal_coins(node, view, request.wal).await?
        } else {
            Vec::new()
        };
        let objects = inputs(node, &request.objects).await?;
        let balance: u64 = gas.iter().map(|coin| coin.balance).fold(0, u64::saturating_add);
        let parts = Parts { view, objects, wal, gas, price, sender: self.signer.address() };
        let tried = parts.build(request, balance.min(TRY_BUDGET))?;
        let used = node.simulate(v2::Transaction::from(tried)).await?;
        // A fifth more than was needed, because shared objects may grow in between.
        let needed = used.computation.saturating_add(used.storage);
        let budget = (needed + needed / 5).max(price.saturating_mul(BUDGET_UNITS_MIN));
        if budget > balance {
            return Err(TxError::Coins {
                account: self.account(),
                coin: "MIST of SUI",
                has: balance,
                needs: budget,
            });
        }
        let estimate = Estimate {
            what: request.purpose.clone(),
            account: self.account(),
            gas: used,
            budget,
            wal: request.wal,
        };
        Ok((parts.build(request, budget)?, estimate))
    }

    async fn coins(&self, node: &Node, of: &str) -> Result<Vec<OwnedCoin>, TxError> {
        let owned = node.owned(&self.signer.address(), &coin_type(of)).await?;
        let mut coins: Vec<OwnedCoin> = owned
            .iter()
            .filter_map(|object| {
                let value = object.0.as_struct()?;
                let coin: Coin = decode("coin", value.contents()).ok()?;
                Some(OwnedCoin { input: ObjectInput::from(&object.0), balance: coin.balance })
            })
            .collect();
        coins.sort_by_key(|coin| std::cmp::Reverse(coin.balance));
        Ok(coins)
    }

    /// The package of the only kind of coin called WAL that the account has. A coin that a
    /// stranger sent under that name makes it two kinds, and the transaction would fail on
    /// the wrong one.
    async fn only_wal_package(&self, node: &Node) -> Result<ObjectId, TxError> {
        let coin = format!("{}::coin::Coin", Address::TWO);
        let owned = node.owned(&self.signer.address(), &coin).await?;
        let packages: BTreeSet<ObjectId> = owned
            .iter()
            .filter_map(|object| match object.0.as_struct()?.object_type().is_coin()? {
                TypeTag::Struct(tag) if tag.module() == "wal" && tag.name() == "WAL" => {
                    Some(object_id(*tag.address()))
                }
                _ => None,
            })
            .collect();
        match packages.first() {
            Some(package) if packages.len() == 1 => Ok(*package),
            _ => Err(TxError::Build(format!(
                "the account {} has coins of {} kinds called WAL: give wal_package in the \
                 network file",
                self.account(),
                packages.len()
            ))),
        }
    }

    /// The largest SUI coins, until the try budget is covered.
    async fn gas_coins(&self, node: &Node) -> Result<Vec<OwnedCoin>, TxError> {
        let coins = self.coins(node, &sui_type()).await?;
        let chosen = choose(coins, TRY_BUDGET, GAS_COINS_MAX);
        if chosen.is_empty() {
            return Err(TxError::Coins {
                account: self.account(),
                coin: "MIST of SUI",
                has: 0,
                needs: 1,
            });
        }
        Ok(chosen)
    }

    async fn wal_coins(
        &self,
        node: &Node,
        view: &SystemView,
        needs: u64,
    ) -> Result<Vec<OwnedCoin>, TxError> {
        let package = match self.chain.network().wal_package {
            Some(package) => package,
            None => match linked_wal_package(node, view).await? {
                Some(package) => package,
                None => self.only_wal_package(node).await?,
            },
        };
        let coins = self.coins(node, &format!("{package}::wal::WAL")).await?;
        let chosen = choose(coins, needs, WAL_COINS_MAX);
        let has = chosen.iter().map(|coin| coin.balance).fold(0, u64::saturating_add);
        if has < needs {
            return Err(TxError::Coins {
                account: self.account(),
                coin: "FROST of WAL",
                has,
                needs,
            });
        }
        Ok(chosen)
    }
}

#[derive(Clone)]
pub(super) struct OwnedCoin {
    pub(super) input: ObjectInput,
    pub(super) balance: u64,
}

/// The first of these, largest first, that reach `needs` together, but at most `most`.
fn choose(coins: Vec<OwnedCoin>, needs: u64, most: usize) -> Vec<OwnedCoin> {
    let mut total = 0u64;
    let mut chosen = Vec::new();
    for coin in coins.into_iter().take(most) {
        if total >= needs {
            break;
        }
        total = total.saturating_add(coin.balance);
        chosen.push(coin);
    }
    chosen
}

/// Everything a transaction is made of.
pub(super) struct Parts<'a> {
    pub(super) view: &'a SystemView,
    pub(super) objects: Vec<ObjectInput>,
    pub(super) wal: Vec<OwnedCoin>,
    pub(super) gas: Vec<OwnedCoin>,
    pub(super) price: u64,
    pub(super) sender: Address,
}

impl Parts<'_> {
    pub(super) fn build(&self, request: &Request<'_>, budget: u64) -> Result<Transaction, TxError> {
        let mut builder = TransactionBuilder::new();
        let mut coins =
            self.wal.iter().map(|coin| builder.object(coin.input.clone())).collect::<Vec<_>>();
        let wal = (!coins.is_empty()).then(|| coins.remove(0));
        if let Some(first) = wal
            && !coins.is_empty()
        {
            builder.merge_coins(first, coins);
        }
        let mut ptb = Ptb {
            builder: &mut builder,
            view: self.view,
            sender: self.sender,
            objects: self.objects.clone(),
            wal,
        };
        (request.build)(&mut ptb)?;
        builder.set_sender(self.sender);
        builder.set_gas_price(self.price);
        builder.set_gas_budget(budget);
        builder.add_gas_objects(self.gas.iter().map(|coin| coin.input.clone()));
        builder.try_build().map_err(|error| TxError::Build(error.to_string()))
    }
}

/// Objects as a transaction names them: owned ones by version, shared ones by where they
/// became shared.
async fn inputs(node: &Node, objects: &[(ObjectId, bool)]) -> Result<Vec<ObjectInput>, TxError> {
    let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
    let found = node.read_all(&ids).await?;
    objects
        .iter()
        .zip(found)
        .map(|(&(id, mutable), object)| {
            let object = object.ok_or_else(|| {
                RpcError::new(Fault::Refused, node.url(), format_args!("no object {id}"))
            })?;
            Ok(match object.owner() {
                Owner::Shared(version) => ObjectInput::shared(address(id), *version, mutable),
                Owner::Immutable => {
                    ObjectInput::immutable(address(id), object.version(), object.digest())
                }
                _ => ObjectInput::owned(address(id), object.version(), object.digest()),
            })
        })
        .collect()
}

/// The package of the WAL coin: the one that Walrus' package is linked with and that has a
/// module `wal`.
async fn linked_wal_package(node: &Node, view: &SystemView) -> Result<Option<ObjectId>, TxError> {
    let walrus = node.read(view.package).await?;
    let ObjectData::Package(walrus) = walrus.data() else {
        return Err(TxError::Build(format!("{} is not a package", view.package)));
    };
    let linked = &walrus.linkage_table;
    let ids: Vec<ObjectId> = linked.values().map(|info| object_id(info.upgraded_id)).collect();
    let packages = node.read_all(&ids).await?;
    let is_wal = |package: &Option<Object>| match package.as_ref().map(Object::data) {
        Some(ObjectData::Package(package)) => {
            package.modules.keys().any(|module| module.as_str() == "wal")
        }
        _ => false,
    };
    let found = linked.keys().zip(&packages).find(|(_, package)| is_wal(package));
    Ok(found.map(|(original, _)| object_id(*original)))
}

/// Whether a gas coin of the transaction has another version than it names.
async fn coins_spent(node: &Node, transaction: &Transaction) -> Result<bool, RpcError> {
    let named = &transaction.gas_payment.objects;
    let ids: Vec<ObjectId> = named.iter().map(|coin| object_id(*coin.object_id())).collect();
    let now = node.read_all(&ids).await?;
    Ok(named
        .iter()
        .zip(now)
        .any(|(named, now)| now.is_none_or(|now| now.version() > named.version())))
}

/// Ids of what effects say was made and still exists.
fn created_ids(effects: &[u8]) -> Result<Vec<ObjectId>, String> {
    let effects: TransactionEffects =
        bcs::from_bytes(effects).map_err(|error| error.to_string())?;
    Ok(match &effects {
        TransactionEffects::V1(effects) => {
            effects.created.iter().map(|made| object_id(*made.reference.object_id())).collect()
        }
        TransactionEffects::V2(effects) => effects
            .changed_objects
            .iter()
            .filter(|change| {
                matches!(change.input_state, sui_sdk_types::ObjectIn::NotExist)
                    && matches!(
                        change.output_state,
                        ObjectOut::ObjectWrite { .. } | ObjectOut::PackageWrite { .. }
                    )
            })
            .map(|change| object_id(change.object_id))
            .collect(),
    })
}

/// Whether a refusal says that an object or price had changed since the transaction was
/// built, so that building it anew may help.
fn changed(error: &RpcError) -> bool {
    let text = error.to_string().to_lowercase();
    ["version", "unavailable for consumption", "gas price", "locked", "equivocat", "stale"]
        .iter()
        .any(|sign| text.contains(sign))
}
