//! What is stored: metadata that hashes to the blob id, slivers that hash to the metadata.

use bytes::Bytes;
use redstuff::bcs::Wire;
use redstuff::{
    Axis, AxisKind, BlobId, ENCODING_RS2, Metadata, Primary, Secondary, ShardCount,
    UnverifiedMetadata, UnverifiedSliver,
};

use super::answer::{Answer, Refusal};
use super::faults::Faults;
use super::node::{Asked, Node, Reply, internal};
use super::route::{Route, SliverName};
use super::store::Change;

/// Longest body of a metadata PUT and of other requests, in bytes: the framework's default.
const BODY_BYTES: u64 = 2 << 20;

/// What a sliver's body may have beyond the largest sliver, in bytes.
const SLIVER_HEADROOM: u64 = 128;

/// The longest body a request of this kind may have, in bytes.
pub(crate) fn body_limit(route: &Route, n: ShardCount) -> u64 {
    match route {
        Route::PutSliver(_) => n.max_sliver_size() + SLIVER_HEADROOM,
        // A proof has one symbol and one Merkle path for each of up to `ks` slivers.
        Route::InconsistencyProof(..) => n.max_sliver_size() + BODY_BYTES,
        Route::PutMetadata(_) | Route::SyncShard => BODY_BYTES,
        _ => 0,
    }
}

impl Asked {
    /// Refuses bodies of another type. No type at all is taken for bytes.
    pub(crate) fn check_binary(&self) -> Result<(), Refusal> {
        let Some(content_type) = &self.content_type else { return Ok(()) };
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/octet-stream") {
            Ok(())
        } else {
            Err(Refusal::content_type())
        }
    }
}

impl Node {
    pub(crate) fn put_metadata(&self, blob: &BlobId, asked: &Asked) -> Result<Reply, Refusal> {
        asked.check_binary()?;
        let metadata = parse_metadata(&asked.body)?;
        let epoch = self.chain().epoch();
        let record = self.record(blob).ok_or_else(Refusal::not_registered)?;
        if let Some(event) = &record.invalid {
            return Err(Refusal::invalid_blob(&event.tx_digest));
        }
        if !record.is_registered(epoch) {
            return Err(Refusal::not_registered());
        }
        if self.store.metadata(blob).map_err(internal)?.is_some() {
            return Ok(Reply::Now(Answer::success("metadata already stored")));
        }
        let n = self.chain().committee().n_shards;
        let metadata = metadata.verify(n, blob).map_err(Refusal::invalid_metadata)?;
        self.cache_metadata(metadata);
        let answer = Answer::success_code(201, "metadata successfully stored");
        Ok(Reply::After(Change::Metadata(*blob, asked.body.clone()), answer))
    }

    pub(crate) fn put_sliver(
        &self,
        name: &SliverName,
        asked: &Asked,
        faults: &Faults,
    ) -> Result<Reply, Refusal> {
        asked.check_binary()?;
        match name.axis {
            AxisKind::Primary => self.put_typed::<Primary>(name, asked, faults),
            AxisKind::Secondary => self.put_typed::<Secondary>(name, asked, faults),
        }
    }

    fn put_typed<A: Axis>(
        &self,
        name: &SliverName,
        asked: &Asked,
        faults: &Faults,
    ) -> Result<Reply, Refusal> {
        let sliver =
            UnverifiedSliver::<A>::from_shared_bcs(&asked.body).map_err(|_| Refusal::not_bcs())?;
        let duty = self.duty();
        if name.pair.0 >= duty.n.get() {
            return Err(Refusal::index_out_of_range(name.pair.0, duty.n.get()));
        }
        if !self.is_registered(&name.blob) {
            return Err(Refusal::not_registered());
        }
        let metadata = self.metadata(&name.blob)?.ok_or_else(Refusal::metadata_required)?;
        let shard = self.check_pair(&duty, name)?;
        let lost = faults.missing_shards.contains(&shard.0);
        // As in the real service, what is there is not compared with what is sent.
        if !lost && self.store.has_all([*name]).map_err(internal)? {
            return Ok(Reply::Now(Answer::success("sliver stored successfully")));
        }
        check_sliver(sliver, name, &metadata)?;
        let answer = Answer::success_code(201, "sliver stored successfully");
        Ok(Reply::After(Change::Sliver(*name, asked.body.clone()), answer))
    }
}

/// Checks that a sliver is the one its name says.
pub(crate) fn check_sliver<A: Axis>(
    sliver: UnverifiedSliver<A>,
    name: &SliverName,
    metadata: &Metadata,
) -> Result<(), Refusal> {
    let n = metadata.shards();
    let expected = name.pair.sliver::<A>(n).map_err(Refusal::invalid_sliver)?;
    if sliver.index != expected {
        return Err(Refusal::sliver_index_mismatch(sliver.index.get(), expected.get()));
    }
    sliver.verify(metadata).map(drop).map_err(Refusal::invalid_sliver)
}

fn parse_metadata(body: &Bytes) -> Result<UnverifiedMetadata, Refusal> {
    UnverifiedMetadata::from_shared_bcs(body).map_err(|_| match body.as_ref() {
        // Well-formed up to an encoding this network no longer has.
        [0, encoding, ..] if *encoding < ENCODING_RS2 => Refusal::unsupported_encoding(),
        _ => Refusal::not_bcs(),
    })
}
