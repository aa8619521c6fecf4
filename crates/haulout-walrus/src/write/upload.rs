//! Sending metadata and slivers to the nodes that are to store them.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    stream::{self, FuturesUnordered, StreamExt},
};
use redstuff::{Axis, EncodedBlob, PairIndex, Primary, Secondary, SliverIndex, bcs::Wire};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    WriteError,
    tally::{Tally, quorum},
};
use crate::{
    Committee, Progress,
    client::{Node, Nodes, clock, random},
    limits::{
        IN_FLIGHT_BYTES_MAX, STATUS_CHECK_BYTES, UNREACHABLE_RETRIES, WRITE_NODES_MAX, WRITE_PAUSE,
        WRITE_RETRIES,
    },
    node::{NodeError, Uploaded, Verdict},
    wire::StoredOnNode,
};

/// Writes in flight to one node: the reference client's number.
const NODE_WRITES_MAX: usize = 10;

/// Most jitter of a pause, in milliseconds: the reference client's.
const JITTER_MS: u64 = 1000;

/// The semaphore that bounds bytes in flight counts in units of this many.
const UNIT: usize = 1024;

/// An upload of one blob to one committee.
pub(super) struct Upload<'a> {
    committee: &'a Committee,
    nodes: &'a Nodes,
    encoded: &'a Arc<EncodedBlob>,
    metadata: Bytes,
    in_flight: Semaphore,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        committee: &'a Committee,
        nodes: &'a Nodes,
        encoded: &'a Arc<EncodedBlob>,
    ) -> Self {
        let metadata = encoded.metadata().as_unverified().to_bcs().into();
        let in_flight = Semaphore::new(IN_FLIGHT_BYTES_MAX / UNIT);
        Self { committee, nodes, encoded, metadata, in_flight }
    }

    /// Sends to the nodes at `positions`. In the first round a quorum has to be reached, and
    /// nodes that are slower than it get a little longer.
    ///
    /// The answer is how many shards have everything.
    pub(super) async fn run(
        &self,
        positions: &[usize],
        first: bool,
        progress: Option<&Progress>,
    ) -> Result<u32, WriteError> {
        let start = Instant::now();
        let mut tally = Tally::new(self.committee);
        let mut failure = None;
        let mut waiting = positions.iter().copied();
        let mut sending = FuturesUnordered::new();
        loop {
            while sending.len() < WRITE_NODES_MAX
                && let Some(position) = waiting.next()
            {
                let one = async move { (position, self.node(position, progress).await) };
                sending.push(one.boxed());
            }
            let deadline = async {
                match tally.deadline() {
                    Some(at) => tokio::time::sleep_until(start + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                sent = sending.next() => match sent {
                    Some((position, Ok(()))) => tally.add(position, clock(start)),
                    Some((position, Err(error))) => {
                        tracing::debug!(node = position, %error, "a node did not store the blob");
                        failure = Some(error.to_string());
                    }
                    None => break,
                },
                () = deadline => break,
            }
        }
        let reached = tally.weight();
        if first && !self.committee.is_quorum(reached) {
            return Err(WriteError::NoQuorum {
                blob: *self.encoded.metadata().id(),
                reached,
                needed: quorum(self.committee),
                shards: self.committee.n_shards.get().into(),
                failure,
            });
        }
        Ok(reached)
    }

    /// Everything one node is to store: metadata first, without which it takes no sliver.
    async fn node(&self, position: usize, progress: Option<&Progress>) -> Result<(), NodeError> {
        let unusable = || NodeError::Malformed("the node's address or key is unusable".to_owned());
        let node = self.nodes.get(position).ok_or_else(unusable)?;
        let blob = self.encoded.metadata().id();
        let put = || node.client.put_metadata(blob, self.metadata.clone());
        let known = persistently(put).await? == Uploaded::Present;
        let pairs = self.committee.pairs_of(position, blob);
        let upload = |pair| {
            async move {
                self.sliver::<Primary>(node, pair, known, progress).await?;
                self.sliver::<Secondary>(node, pair, known, progress).await
            }
            .boxed()
        };
        let uploads: Vec<_> = pairs.into_iter().map(upload).collect();
        let mut uploads = stream::iter(uploads).buffer_unordered(NODE_WRITES_MAX);
        while let Some(uploaded) = uploads.next().await {
            uploaded?;
        }
        Ok(())
    }

    async fn sliver<A: Axis>(
        &self,
        node: &Arc<Node>,
        pair: PairIndex,
        known: bool,
        progress: Option<&Progress>,
    ) -> Result<(), NodeError> {
        let metadata = self.encoded.metadata();
        let size = metadata.sliver_len::<A>();
        let units = u32::try_from(size.div_ceil(UNIT).min(IN_FLIGHT_BYTES_MAX / UNIT));
        // The semaphore is never closed.
        let _permit = self.in_flight.acquire_many(units.unwrap_or(1)).await;
        let blob = metadata.id();
        let done = || {
            if let Some(progress) = progress {
                progress(size as u64);
            }
        };
        if known && size >= STATUS_CHECK_BYTES {
            let status = node.client.sliver_status::<A>(blob, pair).await;
            if status == Ok(StoredOnNode::Stored) {
                done();
                return Ok(());
            }
        }
        let out_of_range = |_| NodeError::Malformed("no such pair".to_owned());
        let index: SliverIndex<A> = pair.sliver(metadata.shards()).map_err(out_of_range)?;
        let sliver = self.encoded.sliver(index).map_err(out_of_range)?;
        let body = Bytes::from(sliver.to_bcs());
        persistently(|| node.client.put_sliver::<A>(blob, pair, body.clone())).await?;
        done();
        Ok(())
    }
}

/// Tries again, with pauses that double, as long as the node may change its mind.
pub(super) async fn persistently<T, F>(request: impl Fn() -> F) -> Result<T, NodeError>
where
    F: Future<Output = Result<T, NodeError>>,
{
    let mut tries = 0;
    loop {
        let error = match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let (asked, most) = match error.verdict() {
            Verdict::Busy(asked) => (asked, WRITE_RETRIES),
            Verdict::NotRegistered => (None, WRITE_RETRIES),
            Verdict::Unreachable => (None, UNREACHABLE_RETRIES),
            _ => return Err(error),
        };
        if tries >= most {
            return Err(error);
        }
        tokio::time::sleep(pause(tries, asked)).await;
        tries += 1;
    }
}

/// The pause after try `tries`: what the node asked for, or a doubling one with up to a second of jitter.
fn pause(tries: u32, asked: Option<Duration>) -> Duration {
    let (least, most) = WRITE_PAUSE;
    let own = least * 2u32.saturating_pow(tries);
    let jitter = Duration::from_millis(random() % JITTER_MS);
    asked.unwrap_or(own + jitter).min(most)
}
