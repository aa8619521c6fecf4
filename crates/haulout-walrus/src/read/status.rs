//! What the nodes together say about a blob's state.

use std::{collections::HashMap, sync::Arc};

use futures_util::{FutureExt, stream::StreamExt};
use redstuff::BlobId;

use super::ReadError;
use crate::{Client, Committee, Node, wire::BlobStatus};

/// Nodes asked for a status at the same time.
const PARALLEL: usize = 64;

impl Client {
    /// The blob's state, as more than `f` shards report it; `None` if the nodes do not agree so far.
    ///
    /// With several statuses of that weight the strongest counts: invalid, permanent, deletable,
    /// nonexistent.
    ///
    /// # Errors
    /// The committee is not known.
    pub async fn status(&self, blob: &BlobId) -> Result<Option<BlobStatus>, ReadError> {
        let view = self.committees(false).await?;
        Ok(self.status_in(&view.current, blob).await)
    }

    pub(crate) async fn status_in(
        &self,
        committee: &Committee,
        blob: &BlobId,
    ) -> Option<BlobStatus> {
        let nodes = self.nodes(committee);
        let ask = |node: Arc<Node>, blob: BlobId| {
            async move {
                let weight = u32::try_from(node.info.shards.len()).unwrap_or(u32::MAX);
                node.client.status(&blob).await.ok().map(|status| (status, weight))
            }
            .boxed()
        };
        let asking: Vec<_> = nodes.0.into_iter().flatten().map(|node| ask(node, *blob)).collect();
        let mut answers = futures_util::stream::iter(asking).buffer_unordered(PARALLEL);
        let mut weights: HashMap<BlobStatus, u32> = HashMap::new();
        let mut answered = 0;
        while let Some(answer) = answers.next().await {
            let Some((status, weight)) = answer else { continue };
            answered += weight;
            *weights.entry(status).or_default() += weight;
            // A quorum has spoken; the rest, perhaps silent, is not waited for if it agrees.
            if committee.is_quorum(answered)
                && let Some(status) = strongest(committee, &weights)
            {
                return Some(status);
            }
        }
        strongest(committee, &weights)
    }

    /// When the blob was first certified, as far as the nodes say.
    pub(crate) async fn certified_epoch(
        &self,
        committee: &Committee,
        blob: &BlobId,
    ) -> Option<u32> {
        self.status_in(committee, blob).await?.certified_epoch()
    }
}

fn strongest(committee: &Committee, weights: &HashMap<BlobStatus, u32>) -> Option<BlobStatus> {
    let rank = |status: &BlobStatus| match status {
        BlobStatus::Invalid { .. } => 3,
        BlobStatus::Permanent { .. } => 2,
        BlobStatus::Deletable { .. } => 1,
        BlobStatus::Nonexistent => 0,
    };
    let believed = weights.iter().filter(|(_, weight)| committee.is_above_validity(**weight));
    believed.map(|(status, _)| status).max_by_key(|status| rank(status)).cloned()
}
