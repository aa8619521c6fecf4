//! Rebuilding single slivers from symbols, where their own nodes do not serve them.

use futures_util::FutureExt;
use redstuff::{Axis, Metadata, Recovered, RecoverySymbols, SliverIndex, VerifiedSymbol, recover};

use super::{
    Account, AxisName, ReadError, Report,
    gather::{blame, blocking, carry_out},
};
use crate::{
    Committee,
    client::Nodes,
    node::Verdict,
    plan::{Candidate, Manner, Outcome, Plan},
};

/// Nodes asked for symbols at the same time.
const PARALLEL: usize = 8;

/// Rebuilds sliver `target` from the symbols that holders of slivers of the other axis have.
pub(super) async fn sliver<T: Axis>(
    (committee, nodes): (&Committee, &Nodes),
    metadata: &Metadata,
    target: SliverIndex<T>,
    report: &mut Report,
) -> Result<redstuff::Sliver<T>, ReadError> {
    let needed = metadata.shards().slivers_to_decode::<T::Other>();
    let order = nodes.shuffled();
    let candidate = |(item, node): (usize, usize)| Candidate {
        item: u16::try_from(item).unwrap_or(u16::MAX),
        node,
        wanted: false,
    };
    let candidates: Vec<_> = order.into_iter().enumerate().map(candidate).collect();
    let most = candidates.len();
    let mut plan = Plan::new(candidates, nodes.views(), most, PARALLEL, Manner::Alone);
    let mut symbols: Vec<VerifiedSymbol<T>> = Vec::new();
    let fetch = |candidate: Candidate| {
        async move {
            let node = nodes.get(candidate.node).ok_or(Outcome::Failed(Verdict::Unreachable))?;
            let shards = node.info.shards.len();
            let answer = node.client.recovery_symbols(metadata, target, shards).await;
            let (RecoverySymbols(list), bytes) =
                answer.map_err(|error| blame(candidate.node, &error))?;
            let verified = list.into_iter().map(|symbol| {
                let (of, symbol) = symbol.into_typed::<T>()?;
                (of == target).then_some(())?;
                symbol.verify(metadata, target).ok()
            });
            let verified: Option<Vec<_>> = verified.collect();
            verified.map(|verified| (verified, bytes as u64)).ok_or(Outcome::Lie)
        }
        .boxed()
    };
    let mut fetched = 0;
    carry_out(&mut plan, fetch, |_, (found, bytes): (Vec<VerifiedSymbol<T>>, u64)| {
        fetched += bytes;
        symbols.extend(found);
        symbols.sort_by_key(|symbol| symbol.content().symbol.source.get());
        symbols.dedup_by_key(|symbol| symbol.content().symbol.source.get());
        symbols.len() >= needed
    })
    .await;
    nodes.learn(plan.nodes());
    let account = Account::of(committee, plan.nodes());
    report.liars.extend(&account.liars);
    let found = symbols.len();
    report.symbol_bytes += fetched;
    if found < needed {
        let axis = AxisName(T::KIND.other());
        return Err(ReadError::TooFew { blob: *metadata.id(), axis, found, needed, account });
    }
    let of = metadata.clone();
    match blocking(move || recover(&of, target, &symbols)).await? {
        Ok(Recovered::Sliver(sliver)) => {
            report.recovered += 1;
            Ok(sliver)
        }
        // Every symbol was proven, so the writer encoded the blob inconsistently.
        Ok(Recovered::Inconsistent(_)) | Err(_) => {
            Err(ReadError::Decode(*metadata.id(), redstuff::DecodeError::Inconsistent))
        }
    }
}
