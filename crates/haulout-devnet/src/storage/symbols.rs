//! Symbols for those who rebuild a sliver, and proofs that a blob is inconsistent.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use redstuff::bcs::Wire;
use redstuff::messages::InvalidBlobId;
use redstuff::{
    Axis, AxisKind, BlobId, DecodingSymbol, DecodingSymbols, EitherDecodingSymbol,
    GeneralRecoverySymbol, InconsistencyProof, PairIndex, Primary, RecoverySymbols, Secondary,
    SliverIndex, SymbolId, UnverifiedSliver,
};

use super::answer::{Answer, Refusal};
use super::faults::Faults;
use super::node::{Asked, Duty, Node};
use super::route::{SliverName, SymbolFilter};

/// Most bytes of symbols in one answer; a client that needs more asks again.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A sliver with all its symbols, of either axis.
enum Expanded {
    Primary(redstuff::ExpandedSliver<Primary>),
    Secondary(redstuff::ExpandedSliver<Secondary>),
}

impl Expanded {
    /// The symbol shared with sliver `target` of the other axis.
    fn symbol(&self, target: u16) -> Result<GeneralRecoverySymbol, Refusal> {
        fn take<A: Axis>(
            sliver: &redstuff::ExpandedSliver<A>,
            target: u16,
        ) -> Result<GeneralRecoverySymbol, Refusal> {
            let target = SliverIndex::new(target);
            let symbol = sliver.recovery_symbol(target).map_err(|_| Refusal::internal())?;
            Ok(GeneralRecoverySymbol::new(target, symbol))
        }
        match self {
            Self::Primary(sliver) => take(sliver, target),
            Self::Secondary(sliver) => take(sliver, target),
        }
    }
}

/// Slivers expanded for one request: many symbols may come from the same one.
type Sources = BTreeMap<(AxisKind, u16), Expanded>;

impl Node {
    /// Fetches and expands the sliver of `pair` on `axis`.
    fn expand(&self, duty: &Duty, name: &SliverName, faults: &Faults) -> Result<Expanded, Refusal> {
        let context = "the sliver from which to extract the recovery symbol could not be retrieved";
        let bytes = self.sliver_bytes(duty, name, faults).map_err(|r| r.within(context))?;
        let metadata = self.metadata(&name.blob)?.ok_or_else(Refusal::internal)?;
        fn typed<A: Axis>(
            bytes: &Bytes,
            metadata: &redstuff::Metadata,
        ) -> Result<redstuff::ExpandedSliver<A>, Refusal> {
            let sliver = UnverifiedSliver::<A>::from_shared_bcs(bytes);
            let sliver = sliver.map_err(|_| Refusal::internal())?;
            // It was verified when it was stored; files can still rot.
            Ok(sliver.verify(metadata).map_err(|_| Refusal::internal())?.expand())
        }
        Ok(match name.axis {
            AxisKind::Primary => Expanded::Primary(typed(&bytes, &metadata)?),
            AxisKind::Secondary => Expanded::Secondary(typed(&bytes, &metadata)?),
        })
    }

    /// One symbol, from whichever of its two slivers is here; the primary one first.
    fn symbol(
        &self,
        duty: &Duty,
        blob: &BlobId,
        id: SymbolId,
        proof_axis: Option<AxisKind>,
        sources: &mut Sources,
        faults: &Faults,
    ) -> Result<GeneralRecoverySymbol, Refusal> {
        let n = duty.n;
        let pairs = [
            (AxisKind::Primary, id.primary.pair(n), id.primary.get(), id.secondary.get()),
            (AxisKind::Secondary, id.secondary.pair(n), id.secondary.get(), id.primary.get()),
        ];
        if let Some((.., index, _)) = pairs.iter().find(|(_, pair, ..)| pair.is_err()) {
            return Err(Refusal::symbol_out_of_range(*index, n.get()));
        }
        let mut last = Refusal::symbol_elsewhere();
        for (axis, pair, _, target) in pairs {
            let Ok(pair) = pair else { continue };
            let here = pair.shard(n, blob).is_ok_and(|s| duty.shards.binary_search(&s).is_ok());
            if !here || proof_axis.is_some_and(|wanted| wanted != axis) {
                continue;
            }
            let source = match sources.entry((axis, pair.0)) {
                std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
                std::collections::btree_map::Entry::Vacant(free) => self
                    .expand(duty, &SliverName { blob: *blob, pair, axis }, faults)
                    .map(|sliver| free.insert(sliver)),
            };
            match source {
                Ok(source) => return source.symbol(target),
                Err(refusal) => last = refusal,
            }
        }
        Err(last)
    }

    pub(crate) fn one_symbol(
        &self,
        blob: &BlobId,
        id: SymbolId,
        faults: &Faults,
    ) -> Result<Answer, Refusal> {
        let symbol = self.symbol(&self.duty(), blob, id, None, &mut Sources::new(), faults)?;
        Ok(Answer::bcs(symbol.to_bcs()))
    }

    /// The old route: source pair and target pair instead of a symbol, no tag in the answer.
    pub(crate) fn legacy_symbol(
        &self,
        name: &SliverName,
        target: PairIndex,
        faults: &Faults,
    ) -> Result<Answer, Refusal> {
        fn untagged<T: Axis>(symbol: GeneralRecoverySymbol) -> Result<Answer, Refusal> {
            let (_, symbol) = symbol.into_typed::<T>().ok_or_else(Refusal::internal)?;
            Ok(Answer::bcs(symbol.to_bcs()))
        }
        let duty = self.duty();
        let n = duty.n;
        for pair in [name.pair, target] {
            if pair.0 >= n.get() {
                return Err(Refusal::symbol_out_of_range(pair.0, n.get()));
            }
        }
        let out = |_| Refusal::symbol_out_of_range(target.0, n.get());
        let (primary, secondary) = match name.axis {
            AxisKind::Primary => (target, name.pair),
            AxisKind::Secondary => (name.pair, target),
        };
        let id = SymbolId {
            primary: primary.sliver(n).map_err(out)?,
            secondary: secondary.sliver(n).map_err(out)?,
        };
        let from = Some(name.axis.other());
        let symbol = self.symbol(&duty, &name.blob, id, from, &mut Sources::new(), faults)?;
        match name.axis {
            AxisKind::Primary => untagged::<Primary>(symbol),
            AxisKind::Secondary => untagged::<Secondary>(symbol),
        }
    }

    pub(crate) fn symbols(
        &self,
        blob: &BlobId,
        filter: &SymbolFilter,
        proof_axis: Option<AxisKind>,
        faults: &Faults,
    ) -> Result<Answer, Refusal> {
        let duty = self.duty();
        let ids: Vec<SymbolId> = match filter {
            SymbolFilter::Ids(ids) => ids.clone(),
            // One for each shard: the other of each pair's slivers crosses the target.
            SymbolFilter::ForSliver(axis, target) => {
                let pairs = duty.shards.iter().filter_map(|s| s.pair(duty.n, blob).ok());
                pairs.filter_map(|pair| crossing(pair, *axis, *target, duty.n)).collect()
            }
        };
        let (mut found, mut sources, mut bytes) = (Vec::new(), Sources::new(), 0);
        let mut last = Refusal::symbol_elsewhere();
        for id in ids {
            match self.symbol(&duty, blob, id, proof_axis, &mut sources, faults) {
                Ok(symbol) => {
                    bytes += match &symbol.symbol {
                        EitherDecodingSymbol::Primary(symbol) => symbol.data.len(),
                        EitherDecodingSymbol::Secondary(symbol) => symbol.data.len(),
                    };
                    found.push(symbol);
                }
                Err(refusal) => last = refusal,
            }
            if bytes > ANSWER_BYTES_MAX {
                return Err(Refusal::unavailable());
            }
        }
        if found.is_empty() {
            return Err(last);
        }
        Ok(Answer::bcs(RecoverySymbols(found).to_bcs()))
    }

    /// Symbols without proofs for systematic slivers: they are parts of the stored slivers.
    pub(crate) fn decoding_symbols(
        &self,
        blob: &BlobId,
        targets: &[u16],
        axis: AxisKind,
        faults: &Faults,
    ) -> Result<Answer, Refusal> {
        let duty = self.duty();
        if targets.is_empty() {
            return Err(Refusal::no_targets());
        }
        let sources = duty.n.source_symbols(axis);
        if let Some(&target) = targets.iter().find(|target| usize::from(**target) >= sources) {
            return Err(Refusal::target_out_of_range(target, sources));
        }
        let mut found = BTreeMap::<u16, Vec<EitherDecodingSymbol>>::new();
        let (mut last, mut bytes) = (Refusal::symbol_elsewhere(), 0);
        for pair in duty.shards.iter().filter_map(|shard| shard.pair(duty.n, blob).ok()) {
            let name = SliverName { blob: *blob, pair, axis: axis.other() };
            let sliver = match self.sliver_bytes(&duty, &name, faults) {
                Ok(sliver) => sliver,
                Err(refusal) => {
                    last = refusal;
                    continue;
                }
            };
            for &target in targets {
                let symbol = match axis {
                    AxisKind::Primary => stored_symbol::<Secondary>(&sliver, target)
                        .map(EitherDecodingSymbol::Primary),
                    AxisKind::Secondary => stored_symbol::<Primary>(&sliver, target)
                        .map(EitherDecodingSymbol::Secondary),
                };
                let symbol = symbol.ok_or_else(Refusal::internal)?;
                bytes += 8 + sliver.len() / sources.max(1);
                found.entry(target).or_default().push(symbol);
            }
            if bytes > ANSWER_BYTES_MAX {
                return Err(Refusal::unavailable());
            }
        }
        if found.is_empty() {
            return Err(last);
        }
        Ok(Answer::bcs(DecodingSymbols(found).to_bcs()))
    }

    pub(crate) fn attest_invalid(
        &self,
        blob: &BlobId,
        axis: AxisKind,
        asked: &Asked,
    ) -> Result<Answer, Refusal> {
        asked.check_binary()?;
        let not_bcs = |_| Refusal::not_bcs();
        // Parsed before anything is looked up, as in the real service.
        let (primary, secondary) = match axis {
            AxisKind::Primary => {
                let proof = InconsistencyProof::<Primary>::from_shared_bcs(&asked.body);
                (Some(proof.map_err(not_bcs)?), None)
            }
            AxisKind::Secondary => {
                let proof = InconsistencyProof::<Secondary>::from_shared_bcs(&asked.body);
                (None, Some(proof.map_err(not_bcs)?))
            }
        };
        if !self.is_registered(blob) {
            return Err(Refusal::metadata_required());
        }
        let metadata = self.metadata(blob)?.ok_or_else(Refusal::metadata_required)?;
        let checked = match (primary, secondary) {
            (Some(proof), _) => proof.verify(&metadata),
            (_, Some(proof)) => proof.verify(&metadata),
            (None, None) => return Err(Refusal::internal()),
        };
        checked.map_err(Refusal::invalid_proof)?;
        let signed = self.sign(self.duty().epoch, InvalidBlobId(*blob), &self.switch.get());
        Ok(Answer::success(serde_json::json!({
            "serializedMessage": BASE64.encode(&signed.message),
            "signature": BASE64.encode(&signed.signature),
        })))
    }
}

/// The symbol where the target sliver meets the pair's sliver of the other axis.
fn crossing(
    pair: PairIndex,
    axis: AxisKind,
    target: u16,
    n: redstuff::ShardCount,
) -> Option<SymbolId> {
    Some(match axis {
        AxisKind::Primary => {
            SymbolId { primary: SliverIndex::new(target), secondary: pair.sliver(n).ok()? }
        }
        AxisKind::Secondary => {
            SymbolId { primary: pair.sliver(n).ok()?, secondary: SliverIndex::new(target) }
        }
    })
}

/// Symbol `target` of a stored sliver of axis `A`.
fn stored_symbol<A: Axis>(sliver: &Bytes, target: u16) -> Option<DecodingSymbol<A::Other>> {
    let sliver = UnverifiedSliver::<A>::from_shared_bcs(sliver).ok()?;
    let size = usize::from(sliver.symbol_size);
    let at = usize::from(target) * size;
    let data = (at + size <= sliver.data.len()).then(|| sliver.data.slice(at..at + size))?;
    Some(DecodingSymbol { source: SliverIndex::new(sliver.index.get()), data })
}
