//! Trying again with committees read anew, as far as that can help.

use std::time::Duration;

use redstuff::{BlobId, ShardCount};

use super::{ReadError, error::Account};
use crate::{
    Client, Committee, CommitteeView,
    client::Nodes,
    limits::{READ_PAUSE, READ_TRIES},
};

/// Tries when nothing but nodes that are down or busy speaks for another one.
const PASSING_TRIES: u32 = 2;

/// The tries of one read.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    blob: &'a BlobId,
    count: u32,
    view: Option<CommitteeView>,
}

impl<'a> Tries<'a> {
    pub(super) fn new(blob: &'a BlobId) -> Self {
        Self { blob, count: 0, view: None }
    }

    /// The number of shards, once a committee was read.
    pub(super) fn shards(&self) -> Option<ShardCount> {
        self.view.as_ref().map(|view| view.current.n_shards)
    }

    /// The committee to read from in this try, and its nodes.
    pub(super) async fn committee(
        &mut self,
        client: &Client,
    ) -> Result<(Committee, Nodes), ReadError> {
        self.count += 1;
        let view = client.committees(self.count > 1).await?;
        // What fetches for many asks both committees by itself (see `Client::sliver_from_owner`).
        let committee = if view.is_changing() && !client.source.is_shared() {
            self.during_change(client, &view).await
        } else {
            view.current.clone()
        };
        self.view = Some(view);
        let nodes = client.nodes(&committee);
        Ok((committee, nodes))
    }

    /// While shards are moving, what is older than the epoch is read from the committee before. When it
    /// was certified only the nodes can say; without their word the two committees take turns.
    async fn during_change(&self, client: &Client, view: &CommitteeView) -> Committee {
        match client.certified_epoch(&view.current, self.blob).await {
            Some(epoch) => view.for_reading(Some(epoch)).clone(),
            None => match &view.previous {
                Some(previous) if self.count.is_multiple_of(2) => previous.clone(),
                _ => view.current.clone(),
            },
        }
    }

    /// Waits before the next try, or returns the error if another would not help.
    pub(super) async fn again(
        &mut self,
        client: &Client,
        error: ReadError,
    ) -> Result<(), ReadError> {
        let changing = self.view.as_ref().is_some_and(CommitteeView::is_changing);
        let most = match &error {
            ReadError::TooFew { account, .. } | ReadError::NoMetadata { account, .. } => {
                most_tries(account, changing)
            }
            ReadError::NotFound(_) if changing => READ_TRIES,
            _ => 1,
        };
        if self.count >= most && !self.is_outdated(client, &error).await {
            return Err(error);
        }
        tracing::debug!(%error, try = self.count, "reading again");
        tokio::time::sleep(pause(self.count)).await;
        Ok(())
    }

    /// Whether the epoch changed under a read that failed for want of nodes: what the nodes said, they
    /// said as members of another committee.
    async fn is_outdated(&self, client: &Client, error: &ReadError) -> bool {
        let of_nodes = matches!(
            error,
            ReadError::TooFew { .. } | ReadError::NoMetadata { .. } | ReadError::NotFound(_)
        );
        let Some(view) = self.view.as_ref().filter(|_| of_nodes && self.count < READ_TRIES) else {
            return false;
        };
        let stage = |view: &CommitteeView| (view.epoch, view.is_changing());
        client.committees(true).await.is_ok_and(|now| stage(&now) != stage(view))
    }
}

fn most_tries(account: &Account, changing: bool) -> u32 {
    if changing || account.wrong_shard > 0 {
        READ_TRIES
    } else if account.passing {
        PASSING_TRIES
    } else {
        1
    }
}

fn pause(tries: u32) -> Duration {
    let (least, most) = READ_PAUSE;
    (least * 2u32.saturating_pow(tries.saturating_sub(1))).min(most)
}
