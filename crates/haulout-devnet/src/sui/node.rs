//! The devnet's chain as the rest of the program has it, and full nodes that serve it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use haulout_walrus::committee::{Committee, CommitteeView};
use redstuff::BlobId;
use sui_crypto::{SuiSigner, ed25519::Ed25519PrivateKey};
use sui_rpc::proto::sui::{
    rpc::v2::{
        ledger_service_server::LedgerServiceServer,
        move_package_service_server::MovePackageServiceServer,
        state_service_server::StateServiceServer,
        subscription_service_server::SubscriptionServiceServer,
        transaction_execution_service_server::TransactionExecutionServiceServer,
    },
    rpc::v2alpha::proof_service_server::ProofServiceServer,
};
use sui_sdk_types::{
    Address, Digest, ExecutionStatus, SignedTransaction, ValidatorCommittee, hash::Hasher,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_web::GrpcWebLayer;

use super::{
    genesis::{self, Setup},
    grpc::{ClockFn, Faults, Service, Shared},
    model::Executed,
    ptb::Ptb,
    walrus::{View, WalrusIds, view},
};
use crate::storage::{BlobRecord, NodeChain};

/// Gas budget of the devnet's own transactions in MIST.
const BUDGET: u64 = 10_000_000_000;

/// A Sui chain with Walrus on it. Cloning gives another handle to the same chain.
#[derive(Clone)]
pub struct Devnet {
    shared: Arc<Shared>,
    ids: Arc<WalrusIds>,
    operator: [u8; 32],
    now: ClockFn,
    /// The committee at the start.
    first: Arc<Committee>,
    committees: Arc<Mutex<Option<View>>>,
}

impl std::fmt::Debug for Devnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devnet").field("ids", &self.ids).finish_non_exhaustive()
    }
}

/// Why a node does not serve, or the devnet's own transaction failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct FullNodeError {
    what: String,
    #[source]
    source: Option<std::io::Error>,
}

impl Devnet {
    /// A new chain whose storage nodes are `committee`; `now` gives milliseconds since 1970.
    pub fn new(
        setup: &Setup,
        committee: &Committee,
        now: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(b"haulout devnet operator");
        hasher.update(setup.seed);
        let operator = hasher.finalize().into_inner();
        let account = Ed25519PrivateKey::new(operator).public_key().derive_address();
        let (chain, ids) = genesis::chain(setup, committee, account, now());
        Self {
            shared: Arc::new(Shared::new(chain)),
            ids: Arc::new(ids),
            operator,
            now: Arc::new(now),
            first: Arc::new(committee.clone()),
            committees: Arc::default(),
        }
    }

    /// The digest of the first checkpoint: the chain's identifier, and a trust anchor.
    #[must_use]
    pub fn chain_id(&self) -> Digest {
        self.shared.lock().id()
    }

    /// Walrus' `System` object.
    #[must_use]
    pub fn system_object(&self) -> Address {
        self.ids.system
    }

    /// Walrus' `Staking` object.
    #[must_use]
    pub fn staking_object(&self) -> Address {
        self.ids.staking
    }

    /// The package that Walrus' types are named after.
    #[must_use]
    pub fn walrus_package(&self) -> Address {
        self.ids.original
    }

    /// The package whose functions are to be called.
    #[must_use]
    pub fn current_walrus_package(&self) -> Address {
        self.ids.package
    }

    /// The package of the WAL coin.
    #[must_use]
    pub fn wal_package(&self) -> Address {
        self.ids.wal
    }

    /// The account that has the storage nodes' caps, and coins to give.
    #[must_use]
    pub fn operator_address(&self) -> Address {
        Ed25519PrivateKey::new(self.operator).public_key().derive_address()
    }

    /// `StorageNodeCap` objects by member of the first committee.
    #[must_use]
    pub fn node_caps(&self) -> &[Address] {
        &self.ids.caps
    }

    /// The validators of a Sui epoch that has begun.
    #[must_use]
    pub fn validators(&self, epoch: u64) -> Option<ValidatorCommittee> {
        self.shared.lock().epochs().get(epoch as usize).map(|epoch| epoch.committee.clone())
    }

    /// The number of the latest checkpoint.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.shared.lock().checkpoints().len() as u64 - 1
    }

    /// Sui's current epoch.
    #[must_use]
    pub fn sui_epoch(&self) -> u64 {
        self.shared.lock().epoch()
    }

    /// Lets time pass: a checkpoint in which only the clock moves.
    pub fn tick(&self) {
        let now = (self.now)();
        self.shared.change(|chain| chain.tick(now));
    }

    /// Ends Sui's epoch. The next committee has some other keys.
    pub fn end_sui_epoch(&self) {
        let now = (self.now)();
        self.shared.change(|chain| chain.end_epoch(now));
    }

    /// Ends Walrus' epoch: shards begin to move, writes go to the new committee.
    ///
    /// # Errors
    /// If a change is under way already.
    pub fn begin_walrus_epoch(&self) -> Result<(), FullNodeError> {
        self.operate(|ptb, ids| {
            let (staking, system) = (ptb.shared(ids.staking, true)?, ptb.shared(ids.system, true)?);
            let clock = ptb.clock();
            ptb.call(ids.package, "staking", "voting_end", vec![staking, clock]);
            let args = vec![staking, system, clock];
            ptb.call(ids.package, "staking", "initiate_epoch_change", args);
            Some(())
        })
    }

    /// The storage nodes report that they have their shards: the epoch change is done.
    ///
    /// # Errors
    /// If no change is under way.
    pub fn finish_walrus_epoch(&self) -> Result<(), FullNodeError> {
        let epoch = self.epoch();
        self.operate(|ptb, ids| {
            let staking = ptb.shared(ids.staking, true)?;
            let (epoch, clock) = (ptb.pure(&epoch), ptb.clock());
            for cap in &ids.caps {
                let cap = ptb.owned(*cap)?;
                let args = vec![staking, cap, epoch, clock];
                ptb.call(ids.package, "staking", "epoch_sync_done", args);
            }
            Some(())
        })
    }

    /// Gives an account a coin of `mist` SUI and one of `frost` WAL.
    ///
    /// # Errors
    /// If the devnet has no more.
    pub fn fund(&self, account: Address, mist: u64, frost: u64) -> Result<(), FullNodeError> {
        self.operate(|ptb, ids| {
            let wal = ptb.largest_coin(&super::walrus::wal_coin_tag(ids.wal))?;
            let sui = ptb.split(sui_sdk_types::Argument::Gas, mist);
            let wal = ptb.split(wal, frost);
            ptb.transfer(vec![sui, wal], account);
            Some(())
        })
    }

    /// Runs a transaction of the devnet's operator.
    fn operate(
        &self,
        build: impl FnOnce(&mut Ptb<'_>, &WalrusIds) -> Option<()>,
    ) -> Result<(), FullNodeError> {
        self.transact(build).map(drop)
    }

    /// A transaction of `sender`'s, not signed and not sent.
    #[cfg(test)]
    pub(crate) fn draft(
        &self,
        sender: Address,
        build: impl FnOnce(&mut Ptb<'_>),
    ) -> sui_sdk_types::Transaction {
        let chain = self.shared.lock();
        let mut ptb = Ptb::new(&chain, sender);
        build(&mut ptb);
        ptb.finish(BUDGET).unwrap()
    }

    pub(crate) fn transact(
        &self,
        build: impl FnOnce(&mut Ptb<'_>, &WalrusIds) -> Option<()>,
    ) -> Result<Arc<Executed>, FullNodeError> {
        let failed = |what: String| FullNodeError { what, source: None };
        let key = Ed25519PrivateKey::new(self.operator);
        let sender = self.operator_address();
        let now = (self.now)();
        self.shared.change(|chain| {
            let mut ptb = Ptb::new(chain, sender);
            build(&mut ptb, &self.ids)
                .ok_or_else(|| failed("the operator lacks an object".into()))?;
            let transaction =
                ptb.finish(BUDGET).ok_or_else(|| failed("the operator has no SUI left".into()))?;
            let signature =
                key.sign_transaction(&transaction).map_err(|error| failed(error.to_string()))?;
            let signed = SignedTransaction { transaction, signatures: vec![signature] };
            let executed = chain.submit(signed, now).map_err(|rejected| failed(rejected.0))?;
            match executed.effects.status() {
                ExecutionStatus::Success => Ok(executed),
                ExecutionStatus::Failure { error, .. } => Err(failed(format!("{error:?}"))),
            }
        })
    }

    /// The same history signed by validators of an attacker's, from `seed`: same objects, same
    /// ids, same chain identifier. What happens on it afterwards is not on this chain.
    #[must_use]
    pub fn fork(&self, seed: [u8; 32]) -> Self {
        let fork = self.shared.lock().fork(seed);
        Self { shared: Arc::new(Shared::new(fork)), committees: Arc::default(), ..self.clone() }
    }

    /// The committees as the chain has them.
    #[must_use]
    pub fn committees(&self) -> Option<CommitteeView> {
        self.view(|view| view.committees.clone())
    }

    /// Reads the committees, from memory if nothing has changed.
    fn view<T>(&self, with: impl FnOnce(&View) -> T) -> Option<T> {
        let mut cached = self.committees.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = self.shared.lock();
        let version = View::version_on(&chain.store, self.ids.staking);
        if cached.as_ref().map(|view| view.version) != version {
            *cached = view(&chain.store, self.ids.staking);
        }
        drop(chain);
        cached.as_ref().map(with)
    }

    /// Serves the chain on `address` (port 0: any). Several nodes may serve the same chain, each
    /// with faults of its own.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn serve(&self, address: SocketAddr) -> Result<FullNode, FullNodeError> {
        let failed = |source| FullNodeError {
            what: format!("the full node cannot listen on {address}"),
            source: Some(source),
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let faults = Faults::default();
        let service = Service::new(self.shared.clone(), faults.clone(), self.now.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        // Browsers and the TypeScript SDK speak gRPC-Web, as real full nodes allow.
        let server = Server::builder()
            .accept_http1(true)
            .layer(GrpcWebLayer::new())
            .add_service(LedgerServiceServer::new(service.clone()))
            .add_service(StateServiceServer::new(service.clone()))
            .add_service(TransactionExecutionServiceServer::new(service.clone()))
            .add_service(SubscriptionServiceServer::new(service.clone()))
            .add_service(MovePackageServiceServer::new(service.clone()))
            .add_service(ProofServiceServer::new(service));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let task = tokio::spawn(async move {
            tokio::select! {
                result = server.serve_with_incoming(incoming) => {
                    if let Err(error) = result {
                        tracing::warn!(%error, "the full node has stopped");
                    }
                }
                // Open streams are cut, as by a node that goes away.
                _ = stopped => {}
            }
        });
        Ok(FullNode { address, faults, stop: Some(stop), task })
    }
}

impl NodeChain for Devnet {
    fn epoch(&self) -> u32 {
        self.view(|view| view.committees.epoch).unwrap_or(0)
    }

    fn committee(&self) -> Arc<Committee> {
        self.view(|view| view.current.clone()).unwrap_or_else(|| self.first.clone())
    }

    fn previous_committee(&self) -> Option<Arc<Committee>> {
        self.view(|view| view.previous.clone()).flatten()
    }

    fn blob(&self, blob: &BlobId) -> Option<BlobRecord> {
        self.shared.lock().blobs.get(blob).cloned()
    }
}

/// A full node that serves a [`Devnet`]. It stops when dropped.
#[derive(Debug)]
pub struct FullNode {
    address: SocketAddr,
    faults: Faults,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl FullNode {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Takes it away: connections end, the port is free again.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.task).await;
    }
}

impl Drop for FullNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}
