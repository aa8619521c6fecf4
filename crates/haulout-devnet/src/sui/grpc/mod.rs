//! The node's gRPC services: `sui.rpc.v2`, and `sui.rpc.v2alpha.ProofService`.
//!
//! Answers, masks and errors follow recordings of a real full node. Not served: name service,
//! most of the package service, signature verification, lists of history, filtered subscriptions.

mod errors;
mod execution;
mod faults;
mod json;
mod ledger;
mod package;
mod proof;
mod render;
mod state;
mod subscription;
mod view;

pub use faults::{FaultState, Faults};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tonic::{Response, Status, metadata::MetadataMap};

use super::model::Chain;
use view::View;

/// Milliseconds since 1970, from whoever runs the node.
pub(crate) type ClockFn = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A chain, and who is waiting for news of it.
#[derive(Debug)]
pub(crate) struct Shared {
    chain: Mutex<Chain>,
    /// Number of the latest checkpoint.
    height: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(chain: Chain) -> Self {
        let height = chain.checkpoints().len() as u64 - 1;
        Self { chain: Mutex::new(chain), height: watch::Sender::new(height) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the chain and tells those who wait for checkpoints.
    pub(crate) fn change<T>(&self, with: impl FnOnce(&mut Chain) -> T) -> T {
        let mut chain = self.lock();
        let result = with(&mut chain);
        let height = chain.checkpoints().len() as u64 - 1;
        drop(chain);
        self.height.send_replace(height);
        result
    }

    pub(crate) fn height(&self) -> watch::Receiver<u64> {
        self.height.subscribe()
    }
}

/// All services of a node.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
    pub(crate) faults: Faults,
    pub(crate) now: ClockFn,
    /// The attacker's chain, while the node serves it.
    fork: Arc<Mutex<Option<Arc<Shared>>>>,
}

/// What the keys of an attacker's validators derive from.
const FORK_SEED: [u8; 32] = [0x66; 32];

impl Service {
    pub(crate) fn new(shared: Arc<Shared>, faults: Faults, now: ClockFn) -> Self {
        Self { shared, faults, now, fork: Arc::default() }
    }

    /// The chain that the node serves at present.
    fn source(&self, faults: FaultState) -> Arc<Shared> {
        let mut fork = self.fork.lock().unwrap_or_else(PoisonError::into_inner);
        if !faults.fork {
            *fork = None;
            return self.shared.clone();
        }
        let new = || Arc::new(Shared::new(self.shared.lock().fork(FORK_SEED)));
        fork.get_or_insert_with(new).clone()
    }

    /// Answers from what the node shows of the chain.
    fn answer<T>(
        &self,
        with: impl FnOnce(&View<'_>) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let faults = self.faults.get();
        if faults.gone {
            return Err(Status::unavailable("the node is gone"));
        }
        let source = self.source(faults);
        let chain = source.lock();
        let view = View::new(&chain, faults);
        let headers = headers(&view);
        match with(&view) {
            Ok(message) => {
                let mut response = Response::new(message);
                *response.metadata_mut() = headers;
                Ok(response)
            }
            Err(mut status) => {
                status.metadata_mut().as_mut().extend(headers.into_headers());
                Err(status)
            }
        }
    }
}

/// What a full node says about itself with every answer.
fn headers(view: &View<'_>) -> MetadataMap {
    let latest = view.latest();
    let chain_id = view.chain.id();
    let short: String = chain_id.inner()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = MetadataMap::new();
    let entries = [
        ("x-sui-chain-id", short),
        ("x-sui-chain", "unknown".into()),
        ("x-sui-epoch", latest.summary.epoch.to_string()),
        ("x-sui-checkpoint-height", latest.summary.sequence_number.to_string()),
        ("x-sui-timestamp-ms", latest.summary.timestamp_ms.to_string()),
        ("x-sui-timestamp", render::timestamp(latest.summary.timestamp_ms).to_string()),
        ("x-sui-lowest-available-checkpoint", view.lowest().to_string()),
        ("x-sui-lowest-available-checkpoint-objects", view.lowest().to_string()),
        ("server", "haulout-devnet".into()),
    ];
    for (name, value) in entries {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    headers
}
