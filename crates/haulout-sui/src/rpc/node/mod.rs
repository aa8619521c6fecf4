//! One full node: the few calls that are needed, with time and size limits.

mod answers;
mod chain;
mod execution;
mod objects;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use sui_rpc::Client;
use tonic::IntoRequest;

use super::{Fault, RpcError, error::words};

pub use answers::{
    CheckpointAt, EpochInfo, Executed, Gas, OwnedObject, Service, SignedParts, TxInfo,
};

/// A call that has not ended by then has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Executing waits for the validators.
const EXECUTE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of one answer: a full checkpoint list has a few MB.
const ANSWER_BYTES_MAX: usize = 24 << 20;
/// What a call gives.
type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

/// A full node, by its address. Cheap to clone; connects when first used.
#[derive(Clone)]
pub struct Node {
    url: Arc<str>,
    client: Arc<OnceLock<Result<Client, RpcError>>>,
    /// Cleared once it has said that it serves no proofs.
    serves_proofs: Arc<AtomicBool>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.url).finish()
    }
}

impl Node {
    /// A node by its address; connects when it is first asked something.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            client: Arc::new(OnceLock::new()),
            serves_proofs: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Made late, because it wants to be made inside of a Tokio runtime.
    fn client(&self) -> Result<Client, RpcError> {
        let made = self.client.get_or_init(|| {
            let client = Client::new(&*self.url)
                .map_err(|status| RpcError::status(&self.url, "connect", &status))?
                .with_response_headers_timeout(EXECUTE_TIMEOUT)
                .with_body_idle_timeout(CALL_TIMEOUT)
                .with_max_decoding_message_size(ANSWER_BYTES_MAX);
            Ok(client)
        });
        made.clone()
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks, and waits for the answer as long as for every ordinary one.
    async fn ask<Q, T>(
        &self,
        doing: &'static str,
        request: Q,
        call: impl AsyncFnOnce(Client, tonic::Request<Q>) -> Answer<T>,
    ) -> Result<T, RpcError> {
        self.ask_within(CALL_TIMEOUT, doing, request, call).await
    }

    /// Asks and waits for an answer, but not for ever; the node is told how long.
    async fn ask_within<Q, T>(
        &self,
        limit: Duration,
        doing: &'static str,
        request: Q,
        call: impl AsyncFnOnce(Client, tonic::Request<Q>) -> Answer<T>,
    ) -> Result<T, RpcError> {
        let mut request = request.into_request();
        request.set_timeout(limit);
        match tokio::time::timeout(limit, call(self.client()?, request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(RpcError::status(&self.url, doing, &status)),
            Err(_) => Err(RpcError::new(
                Fault::Unavailable,
                &self.url,
                format_args!("{doing}: no answer within {} s", limit.as_secs()),
            )),
        }
    }

    fn malformed(&self, what: &str, reason: impl std::fmt::Display) -> RpcError {
        let reason = words(&reason.to_string());
        RpcError::new(Fault::Untrusted, &self.url, format_args!("a malformed {what}: {reason}"))
    }
}
