//! A trust anchor in full nodes' own words: for a person to compare with a source of theirs.
//!
//! Nothing of it is proven. Who takes it as it is has trusted, once, every full node that was asked to be
//! wrong in the same way.

use futures_util::future::join_all;

use crate::{
    Network,
    proof::Trust,
    rpc::{CheckpointAt, Fault, Node, RpcError},
};

/// A checkpoint that names a committee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The epoch that it ends; `None`: it is the first of the chain, whose epoch has not ended yet.
    pub ends: Option<u64>,
    /// Its digest.
    pub digest: [u8; 32],
}

/// What each full node of a network says is the newest checkpoint that ends an epoch, by address.
pub async fn ask(network: &Network) -> Vec<(String, Result<Anchor, RpcError>)> {
    let asked = network.rpc_urls.iter().map(|url| async move {
        let node = Node::new(url);
        (url.clone(), newest(&node).await)
    });
    join_all(asked).await
}

async fn newest(node: &Node) -> Result<Anchor, RpcError> {
    let service = node.service().await?;
    let Some(ended) = service.epoch.checked_sub(1) else {
        return Ok(Anchor { ends: None, digest: service.chain.into_inner() });
    };
    let untrusted = |what: String| {
        RpcError::new(Fault::Untrusted, node.url(), format_args!("epoch {ended}: {what}"))
    };
    let last = node.epoch(Some(ended)).await?.last_checkpoint;
    let last =
        last.ok_or_else(|| untrusted("it is over, but has no last checkpoint".to_owned()))?;
    let summary = node.checkpoint(CheckpointAt::Sequence(last), false).await?.signed.checkpoint;
    let digest = summary.digest().into_inner();
    // It must be of use to a prover.
    Trust::from_checkpoint(&digest, &summary).map_err(|error| untrusted(error.to_string()))?;
    Ok(Anchor { ends: Some(ended), digest })
}
