//! Full nodes: asked one after the other, or all at once, and never believed.
//!
//! Any one that answers is enough for progress. A node that is slow gets a competitor
//! after [`HEDGE_AFTER`]; one that is down costs nothing but that.

mod error;
mod node;

use std::future::Future;

use futures_util::{StreamExt, stream::FuturesUnordered};

pub use error::{Fault, RpcError};
pub use node::{
    CheckpointAt, EpochInfo, Executed, Gas, Node, OwnedObject, Service, SignedParts, TxInfo,
};

use crate::Network;

/// A second node is asked when the first has said nothing for this long.
pub const HEDGE_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// The full nodes of a network, in order of preference.
#[derive(Debug, Clone)]
pub struct Nodes(Vec<Node>);

impl Nodes {
    /// The network's full nodes; nothing is sent yet.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        Self(network.rpc_urls.iter().map(|url| Node::new(url)).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter()
    }

    /// The first good answer. `ask` also checks it: an answer that is refused there is as
    /// good as none.
    ///
    /// # Errors
    /// No node gave a good answer; every one's fault is named.
    pub async fn first<T, E, F, A>(&self, doing: &'static str, ask: A) -> Result<T, RpcError>
    where
        A: Fn(Node) -> F,
        F: Future<Output = Result<T, E>>,
        E: Into<RpcError>,
    {
        let mut waiting = self.0.iter();
        let mut running = FuturesUnordered::new();
        let mut faults = Vec::new();
        let mut next = waiting.next();
        loop {
            if let Some(node) = next.take() {
                running.push(ask(node.clone()));
            }
            let outcome = if waiting.len() == 0 {
                running.next().await
            } else {
                match tokio::time::timeout(HEDGE_AFTER, running.next()).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        next = waiting.next();
                        continue;
                    }
                }
            };
            match outcome {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => {
                    faults.push(error.into());
                    next = waiting.next();
                }
                None if waiting.len() == 0 => return Err(RpcError::none_of(doing, faults)),
                None => next = waiting.next(),
            }
        }
    }

    /// Every node's answer, good or not, as far as they come within a node's time limits.
    pub async fn every<T, E, F, A>(&self, ask: A) -> Vec<Result<T, RpcError>>
    where
        A: Fn(Node) -> F,
        F: Future<Output = Result<T, E>>,
        E: Into<RpcError>,
    {
        let running: FuturesUnordered<_> = self.0.iter().map(|node| ask(node.clone())).collect();
        running.map(|outcome| outcome.map_err(Into::into)).collect().await
    }
}

#[cfg(test)]
mod tests;
