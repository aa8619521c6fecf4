//! Where the objects of a reading come from: a full node's word, or proofs.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use sui_sdk_types::Object;

use crate::{
    ObjectId,
    prover::Prover,
    rpc::{Fault, Node, RpcError},
};

/// Objects proven at once: each takes three small requests.
const CONCURRENT: usize = 8;

/// One full node, believed or not.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) node: &'a Node,
    /// Everything it says is proven with this, if there is one.
    pub(super) prover: Option<&'a Arc<Prover>>,
}

impl Source<'_> {
    /// Several objects, in the order asked for; `None` where there is none.
    pub(super) async fn read_all(&self, ids: &[ObjectId]) -> Result<Vec<Option<Object>>, RpcError> {
        let Some(prover) = self.prover else { return self.node.read_all(ids).await };
        let prove = |id: ObjectId| async move {
            match prover.object(self.node, id).await {
                Ok(verified) => Ok(Some(verified.object)),
                Err(error) if error.fault == Fault::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        stream::iter(ids.iter().copied()).map(prove).buffered(CONCURRENT).try_collect().await
    }
}
