//! Carrying a plan out: requests in flight, checks on arrival, waiting.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    stream::{FuturesUnordered, StreamExt},
};
use redstuff::{
    Axis, BlobId, Metadata, MetadataWithId, PairIndex, ShardCount, Sliver, SliverIndex,
    UnverifiedSliver, bcs::Wire,
};
use tokio::time::Instant;

use super::{Account, AxisName, ReadError, Report};
use crate::{
    Blame, BoxFuture, Client, Committee, Piece,
    client::{Nodes, clock},
    limits::{IN_FLIGHT_BYTES_MAX, METADATA_PARALLEL_MAX, SPOILT_RETRIES},
    node::{NodeError, Verdict},
    plan::{Candidate, Outcome, Plan, Step},
};

/// What was asked for: a good thing, or what to blame the node for.
type Fetched<T> = Result<T, Outcome>;

/// Runs a plan until `enough` says so, it is done or it is stuck. `false` means stuck.
pub(super) async fn carry_out<'f, T>(
    plan: &mut Plan,
    fetch: impl Fn(Candidate) -> BoxFuture<'f, Fetched<T>>,
    mut take: impl FnMut(Candidate, T) -> bool,
) -> bool {
    let start = Instant::now();
    let mut flying = FuturesUnordered::new();
    loop {
        match plan.next(clock(start)) {
            Step::Done => return true,
            Step::Stuck => return false,
            Step::Fetch { slot, candidate } => {
                let fetching = fetch(candidate);
                flying.push(async move { (slot, candidate, fetching.await) });
            }
            Step::Wait(until) => {
                let alarm = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(start + until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Some((slot, candidate, fetched)) = flying.next() => {
                        let now = clock(start);
                        match fetched {
                            Ok(thing) => {
                                plan.answered(slot, now, Outcome::Good);
                                if take(candidate, thing) {
                                    return true;
                                }
                            }
                            Err(outcome) => plan.answered(slot, now, outcome),
                        }
                    }
                    () = alarm => {}
                }
            }
        }
    }
}

/// What an error of a node means for a plan.
pub(super) fn blame(node: usize, error: &NodeError) -> Outcome {
    let verdict = error.verdict();
    match verdict {
        Verdict::Wrong => tracing::warn!(node, %error, "a storage node answers falsely"),
        _ => tracing::debug!(node, %error, "a storage node does not serve"),
    }
    Outcome::Failed(verdict)
}

/// Runs work that takes the processor for a while.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReadError::Worker)
}

/// A blob's metadata, from the first node whose answer is the blob's.
pub(super) async fn metadata(
    client: &Client,
    committee: &Committee,
    nodes: &Nodes,
    blob: &BlobId,
    report: &mut Report,
) -> Result<Metadata, ReadError> {
    let n = committee.n_shards;
    if let Some(known) = client.source.known_metadata(blob).filter(|known| known.shards() == n) {
        return Ok(known);
    }
    if let Some(found) = metadata_anywhere(client, n, blob, report).await {
        return found;
    }
    let order = nodes.shuffled();
    let candidate = |(item, node): (usize, usize)| Candidate {
        item: u16::try_from(item).unwrap_or(u16::MAX),
        node,
        wanted: false,
    };
    let candidates = order.into_iter().enumerate().map(candidate).collect();
    let mut plan = Plan::new(candidates, nodes.views(), 1, METADATA_PARALLEL_MAX, client.manner());
    let mut found = None;
    // Boxed, here and below: otherwise the compiler cannot see that reading is `Send`.
    let fetch = |candidate: Candidate| {
        async move {
            let node = nodes.get(candidate.node).ok_or(Outcome::Failed(Verdict::Unreachable))?;
            let raw = client.source.metadata(node, n, blob).await;
            let raw = raw.map_err(|error| blame(candidate.node, &error))?;
            let parsed = MetadataWithId::from_bcs(&raw).map_err(|_| Outcome::Lie)?;
            let verified = parsed.verify(n, blob).map_err(|_| Outcome::Lie)?;
            Ok((verified, raw.len()))
        }
        .boxed()
    };
    carry_out(&mut plan, fetch, |_, metadata| {
        found = Some(metadata);
        true
    })
    .await;
    nodes.learn(plan.nodes());
    let account = Account::of(committee, plan.nodes());
    report.liars.extend(&account.liars);
    match found {
        Some((metadata, bytes)) => {
            report.metadata_bytes += bytes as u64;
            Ok(metadata)
        }
        None if committee.is_quorum(account.missing) => Err(ReadError::NotFound(*blob)),
        None if committee.is_quorum(account.missing + account.forbidden) => {
            Err(ReadError::Forbidden(*blob))
        }
        None => Err(ReadError::NoMetadata { blob: *blob, account }),
    }
}

/// A blob's metadata from a source that needs no node; `None`: this one does.
async fn metadata_anywhere(
    client: &Client,
    n: ShardCount,
    blob: &BlobId,
    report: &mut Report,
) -> Option<Result<Metadata, ReadError>> {
    for _ in 0..=SPOILT_RETRIES {
        let raw = match client.source.metadata_anywhere(n, blob)?.await {
            Ok(raw) => raw,
            Err(error) => return Some(Err(error)),
        };
        let parsed = MetadataWithId::from_bcs(&raw).ok();
        if let Some(metadata) = parsed.and_then(|parsed| parsed.verify(n, blob).ok()) {
            report.metadata_bytes += raw.len() as u64;
            return Some(Ok(metadata));
        }
        client.source.wrong(Piece::Metadata(blob)).await;
    }
    Some(Err(ReadError::NoMetadata { blob: *blob, account: Account::default() }))
}

/// Verified slivers of a blob by index.
pub(super) type Have<A> = BTreeMap<u16, Sliver<A>>;

/// What to gather.
#[derive(Debug)]
pub(super) struct Goal {
    /// Slivers to fetch first.
    pub(super) wanted: Vec<u16>,
    /// Whether any others stand in for them.
    pub(super) others: bool,
    /// How many there have to be in the end, those at hand included.
    pub(super) need: usize,
}

/// Fetches and verifies slivers until there are enough; what was got stays in `have` either way.
pub(super) async fn slivers<A: Axis>(
    client: &Client,
    (committee, nodes): (&Committee, &Nodes),
    metadata: &Metadata,
    goal: &Goal,
    have: &mut Have<A>,
    report: &mut Report,
) -> Result<(), ReadError> {
    let need = goal.need.saturating_sub(have.len());
    let candidates = candidates::<A>(committee, nodes, metadata, goal, have);
    let size = metadata.sliver_len::<A>();
    let window = (IN_FLIGHT_BYTES_MAX / size.max(1)).clamp(1, need.max(1));
    let mut plan = Plan::new(candidates, nodes.views(), need, window, client.manner());
    let fetch =
        |candidate: Candidate| fetch_sliver::<A>(client, nodes, metadata, candidate).boxed();
    let mut bytes = 0;
    let progress = report.progress.clone();
    let done = carry_out(&mut plan, fetch, |candidate, sliver: Sliver<A>| {
        bytes += sliver.data().len() as u64;
        if let Some(progress) = &progress {
            progress(sliver.data().len() as u64);
        }
        report.by_node.entry(candidate.node).and_modify(|count| *count += 1).or_insert(1);
        have.insert(candidate.item, sliver);
        false
    })
    .await;
    nodes.learn(plan.nodes());
    report.sliver_bytes += bytes;
    report.slivers += plan.done();
    report.hedged += plan.hedged();
    let account = Account::of(committee, plan.nodes());
    report.liars.extend(&account.liars);
    if done {
        return Ok(());
    }
    Err(ReadError::TooFew {
        blob: *metadata.id(),
        axis: AxisName(A::KIND),
        found: have.len(),
        needed: goal.need,
        account,
    })
}

fn candidates<A: Axis>(
    committee: &Committee,
    nodes: &Nodes,
    metadata: &Metadata,
    goal: &Goal,
    have: &Have<A>,
) -> Vec<Candidate> {
    let n = committee.n_shards;
    let candidate = |item: u16, wanted: bool| {
        let PairIndex(pair) = SliverIndex::<A>::new(item).pair(n).ok()?;
        let node = committee.owner_of_pair(metadata.id(), PairIndex(pair))?;
        (!have.contains_key(&item) && nodes.get(node).is_some()).then_some(Candidate {
            item,
            node,
            wanted,
        })
    };
    let mut all: Vec<_> = goal.wanted.iter().filter_map(|&item| candidate(item, true)).collect();
    if goal.others {
        let listed = |item: &u16| goal.wanted.contains(item);
        let others = (0..n.get()).filter(|item| !listed(item));
        all.extend(others.filter_map(|item| candidate(item, false)));
    }
    all
}

async fn fetch_unverified<A: Axis>(
    client: &Client,
    nodes: &Nodes,
    metadata: &Metadata,
    candidate: Candidate,
) -> Fetched<UnverifiedSliver<A>> {
    let node = nodes.get(candidate.node).ok_or(Outcome::Failed(Verdict::Unreachable))?;
    let index = SliverIndex::<A>::new(candidate.item);
    let pair = index.pair(metadata.shards()).map_err(|_| Outcome::Lie)?;
    let raw = client.source.sliver(node, metadata, A::KIND, pair).await;
    let raw = raw.map_err(|error| blame(candidate.node, &error))?;
    let sliver = parse_sliver(&raw, index);
    match sliver.filter(|sliver| sliver.check_shape(metadata).is_ok()) {
        Some(sliver) => Ok(sliver),
        None => Err(whose_lie(client, metadata, candidate.node, index).await),
    }
}

async fn fetch_sliver<A: Axis>(
    client: &Client,
    nodes: &Nodes,
    metadata: &Metadata,
    candidate: Candidate,
) -> Fetched<Sliver<A>> {
    let sliver = fetch_unverified::<A>(client, nodes, metadata, candidate).await?;
    let of = metadata.clone();
    match blocking(move || sliver.verify(&of)).await {
        Ok(Ok(sliver)) => Ok(sliver),
        Ok(Err(_)) => {
            let index = SliverIndex::<A>::new(candidate.item);
            Err(whose_lie(client, metadata, candidate.node, index).await)
        }
        Err(_) => Err(Outcome::Failed(Verdict::Unreachable)),
    }
}

/// A sliver is not the blob's: its node lied, or whoever brought it.
async fn whose_lie<A: Axis>(
    client: &Client,
    metadata: &Metadata,
    node: usize,
    index: SliverIndex<A>,
) -> Outcome {
    tracing::warn!(node, sliver = %index, "a false sliver");
    let Ok(pair) = index.pair(metadata.shards()) else { return Outcome::Lie };
    match client.source.wrong(Piece::Sliver(metadata, A::KIND, pair)).await {
        Blame::Node => Outcome::Lie,
        Blame::OnTheWay => Outcome::Again,
    }
}

/// Fetches exactly these slivers, with no check but their shape: for content that is checked in
/// another way. `None` if one is not to be had.
pub(super) async fn unverified<A: Axis>(
    client: &Client,
    (committee, nodes): (&Committee, &Nodes),
    metadata: &Metadata,
    items: &[u16],
    report: &mut Report,
) -> Option<Vec<(usize, UnverifiedSliver<A>)>> {
    let goal = Goal { wanted: items.to_vec(), others: false, need: items.len() };
    let candidates = candidates::<A>(committee, nodes, metadata, &goal, &Have::new());
    let size = metadata.sliver_len::<A>();
    let window = (IN_FLIGHT_BYTES_MAX / size.max(1)).clamp(1, items.len().max(1));
    let mut plan = Plan::new(candidates, nodes.views(), items.len(), window, client.manner());
    let fetch =
        |candidate: Candidate| fetch_unverified::<A>(client, nodes, metadata, candidate).boxed();
    let mut got = Vec::with_capacity(items.len());
    let done = carry_out(&mut plan, fetch, |candidate, sliver| {
        got.push((candidate.node, sliver));
        false
    })
    .await;
    nodes.learn(plan.nodes());
    report.sliver_bytes += (got.len() * size) as u64;
    report.slivers += got.len();
    report.hedged += plan.hedged();
    got.sort_unstable_by_key(|(_, sliver)| sliver.index);
    done.then_some(got)
}

/// Verifies what was fetched unverified, after its content turned out wrong: what is good goes to
/// `have`, who sent the rest is reported.
pub(super) async fn sort_out<A: Axis>(
    client: &Client,
    committee: &Committee,
    metadata: &Metadata,
    fetched: Vec<(usize, UnverifiedSliver<A>)>,
    have: &mut Have<A>,
    report: &mut Report,
) -> Result<(), ReadError> {
    let (nodes, slivers): (Vec<_>, Vec<_>) = fetched.into_iter().unzip();
    let indices: Vec<_> = slivers.iter().map(|sliver| sliver.index).collect();
    let of = metadata.clone();
    let verified = blocking(move || UnverifiedSliver::verify_all(slivers, &of)).await?;
    for ((node, index), verified) in nodes.into_iter().zip(indices).zip(verified) {
        match verified {
            Ok(sliver) => {
                have.insert(index.get(), sliver);
            }
            Err(_) => {
                if whose_lie(client, metadata, node, index).await == Outcome::Lie {
                    report.liars.extend(committee.members.get(node).map(|node| node.node_id));
                }
            }
        }
    }
    Ok(())
}

fn parse_sliver<A: Axis>(raw: &Bytes, index: SliverIndex<A>) -> Option<UnverifiedSliver<A>> {
    let sliver = UnverifiedSliver::<A>::from_shared_bcs(raw).ok()?;
    (sliver.index == index).then_some(sliver)
}

/// Told of every sliver's bytes as they arrive.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;
