//! Shards change hands: a node gives another the slivers of a shard it had, and rebuilds
//! what nobody gives.

use bytes::Bytes;
use data_encoding::BASE64;
use haulout_walrus::bls::PublicKey;
use redstuff::bcs::Wire;
use redstuff::messages::{ProtocolMessage, SignedMessage, SyncShard, SyncShardResponse};
use redstuff::{
    AnySliver, AxisKind, BlobId, Consistency, Primary, ShardIndex, Sliver, UnverifiedSliver, decode,
};

use super::answer::{Answer, Refusal};
use super::node::{Asked, Node, both, internal};
use super::route::SliverName;
use super::store::{Change, StoreError};

/// Most slivers in one answer of shard synchronisation.
const SYNC_SLIVERS_MAX: u64 = 1_000;

/// Most bytes in one answer of shard synchronisation; the asker goes on where it ends.
const SYNC_BYTES_MAX: usize = 64 << 20;

/// Blobs that are looked at in one go.
const BLOBS_A_STEP: usize = 1_000;

impl Node {
    pub(crate) fn sync_shard(&self, asked: &Asked) -> Result<Answer, Refusal> {
        let Some(authorization) = &asked.authorization else {
            return Ok(Answer::text(401, "Missing Authorization header"));
        };
        let key = BASE64.decode(authorization.as_bytes()).ok();
        let key = key.and_then(|key| <[u8; 48]>::try_from(key).ok());
        let Some(key) = key.and_then(|key| PublicKey::from_bytes(&key).ok()) else {
            return Ok(Answer::text(400, "Invalid Authorization header"));
        };
        asked.check_binary()?;
        let signed = SignedMessage::from_bcs(&asked.body).map_err(|_| Refusal::not_bcs())?;
        let committee = self.chain().committee();
        if committee.members.iter().all(|member| member.bls_public_key != key.to_bytes()) {
            return Err(Refusal::sync_unauthorized());
        }
        key.verify(&signed.message, &signed.signature).map_err(Refusal::sync_message)?;
        let message = ProtocolMessage::<SyncShard>::from_bcs(&signed.message)
            .map_err(Refusal::sync_message)?;
        let (request, epoch) = (message.content, committee.epoch);
        if message.epoch != epoch || request.epoch != epoch {
            return Err(Refusal::sync_epoch(request.epoch, epoch));
        }
        if request.count > SYNC_SLIVERS_MAX {
            return Err(Refusal::sync_count(request.count, SYNC_SLIVERS_MAX));
        }
        if !self.duty().holds(request.shard) {
            return Err(Refusal::shard_not_assigned(request.shard.0, epoch));
        }
        let count = usize::try_from(request.count).unwrap_or(usize::MAX);
        let slivers =
            self.shard_slivers(request.shard, request.axis, request.starting_blob, count)?;
        Ok(Answer::bcs(SyncShardResponse(slivers).to_bcs()))
    }

    /// Slivers of one axis in a shard, by blob id from `from` on.
    fn shard_slivers(
        &self,
        shard: ShardIndex,
        axis: AxisKind,
        from: BlobId,
        count: usize,
    ) -> Result<Vec<(BlobId, AnySliver)>, Refusal> {
        fn parsed<A: redstuff::Axis>(bytes: &Bytes) -> Result<UnverifiedSliver<A>, Refusal> {
            UnverifiedSliver::from_shared_bcs(bytes).map_err(|_| Refusal::internal())
        }
        let (n, mut found, mut bytes) = (self.duty().n, Vec::new(), 0);
        for blob in self.store.blobs(&from, BLOBS_A_STEP).map_err(internal)? {
            if found.len() >= count || bytes > SYNC_BYTES_MAX {
                break;
            }
            let Ok(pair) = shard.pair(n, &blob) else { continue };
            let name = SliverName { blob, pair, axis };
            let Some(sliver) = self.store.sliver(&name).map_err(internal)? else { continue };
            bytes += sliver.len();
            found.push((
                blob,
                match axis {
                    AxisKind::Primary => AnySliver::Primary(parsed(&sliver)?),
                    AxisKind::Secondary => AnySliver::Secondary(parsed(&sliver)?),
                },
            ));
        }
        Ok(found)
    }

    /// Every blob this node has metadata of.
    pub(crate) fn all_blobs(&self) -> Result<Vec<BlobId>, StoreError> {
        let (mut all, mut from) = (Vec::new(), BlobId([0; 32]));
        loop {
            let step = self.store.blobs(&from, BLOBS_A_STEP)?;
            let last = step.last().copied();
            let full = step.len() == BLOBS_A_STEP;
            all.extend(step);
            match last.and_then(|last| after(&last)).filter(|_| full) {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }

    /// Drops what is no longer registered, and pairs of shards that went elsewhere two epochs ago.
    pub(crate) async fn tidy(&self) -> Result<(), StoreError> {
        let duty = self.duty();
        for blob in self.all_blobs()? {
            if !self.is_registered(&blob) {
                self.store.apply(Change::DropBlob(blob)).await?;
                continue;
            }
            for shard in (0..duty.n.get()).map(ShardIndex).filter(|shard| !duty.holds(*shard)) {
                let Ok(pair) = shard.pair(duty.n, &blob) else { continue };
                if self.store.has_any(both(&blob, pair))? {
                    self.store.apply(Change::DropPair(blob, pair)).await?;
                }
            }
        }
        Ok(())
    }

    /// Fills in what this node should have of a blob: from nodes that have it, or rebuilt.
    /// `others` are the nodes that can be reached.
    pub(crate) async fn heal(&self, blob: &BlobId, others: &[&Self]) -> Result<(), StoreError> {
        if self.store.metadata(blob)?.is_none() {
            let found = others.iter().find_map(|other| other.store.metadata(blob).transpose());
            let Some(bytes) = found.transpose()? else { return Ok(()) };
            self.store.apply(Change::Metadata(*blob, bytes)).await?;
        }
        let duty = self.duty();
        let pairs = duty.shards.iter().filter_map(|shard| shard.pair(duty.n, blob).ok());
        let mut encoded = None;
        for name in pairs.flat_map(|pair| both(blob, pair)) {
            if self.store.has_all([name])? {
                continue;
            }
            let given = others.iter().find_map(|other| other.store.sliver(&name).transpose());
            let sliver = match given.transpose()? {
                Some(sliver) => sliver,
                None => {
                    if encoded.is_none() {
                        encoded = self.rebuild(blob, others)?;
                    }
                    let Some(encoded) = &encoded else { return Ok(()) };
                    let Ok(pair) = encoded.pair(name.pair) else { continue };
                    match name.axis {
                        AxisKind::Primary => pair.0.to_bcs().into(),
                        AxisKind::Secondary => pair.1.to_bcs().into(),
                    }
                }
            };
            self.store.apply(Change::Sliver(name, sliver)).await?;
        }
        Ok(())
    }

    /// The whole blob encoded anew from primary slivers of others; `None` if too few are left.
    fn rebuild(
        &self,
        blob: &BlobId,
        others: &[&Self],
    ) -> Result<Option<redstuff::EncodedBlob>, StoreError> {
        let Ok(Some(metadata)) = self.metadata(blob) else { return Ok(None) };
        let n = metadata.shards();
        let mut slivers: Vec<Sliver<Primary>> = Vec::new();
        for pair in (0..n.get()).map(redstuff::PairIndex) {
            if slivers.len() == n.slivers_to_decode::<Primary>() {
                break;
            }
            let name = SliverName { blob: *blob, pair, axis: AxisKind::Primary };
            let bytes = others.iter().find_map(|other| other.store.sliver(&name).transpose());
            let Some(bytes) = bytes.transpose()? else { continue };
            let sliver = UnverifiedSliver::from_shared_bcs(&bytes).ok();
            slivers.extend(sliver.and_then(|sliver| sliver.verify(&metadata).ok()));
        }
        let data = decode(&metadata, &slivers, Consistency::Strict).ok();
        Ok(data.and_then(|data| n.encode(data).ok()))
    }
}

/// The id after this one; `None` after the last.
fn after(blob: &BlobId) -> Option<BlobId> {
    let mut id = blob.0;
    for byte in id.iter_mut().rev() {
        let (next, over) = byte.overflowing_add(1);
        *byte = next;
        if !over {
            return Some(BlobId(id));
        }
    }
    None
}
