//! What metadata and slivers are called as objects of the site: alike on all agents, see `docs/protocol.md`.

use bytes::Bytes;
use haulout_swarm::site::{Cut, OutsideId, SiteKey, SiteKind};
use redstuff::{AxisKind, BlobId, Metadata, PairIndex, Primary, Secondary};
use ring::digest::{Context, SHA256};

use crate::site::SiteObject;

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Metadata(BlobId),
    Sliver(BlobId, AxisKind, PairIndex),
}

/// The name of the network whose System object (or whatever else tells it from all others) has these bytes.
pub(super) fn outside_id(network: &[u8]) -> OutsideId {
    OutsideId::from_bytes(hash(&[b"haulout walrus 1\0", network]))
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

/// A blob's metadata as an object of the site.
pub(super) fn metadata_object(outside: OutsideId, blob: &BlobId) -> SiteObject {
    let id = hash(&[b"haulout metadata 1\0", outside.as_bytes(), blob.as_bytes()]);
    SiteObject {
        key: SiteKey { kind: SiteKind::BlobMetadata, id },
        size: None,
        outside,
        descriptor: Bytes::copy_from_slice(blob.as_bytes()),
    }
}

/// A sliver as an object of the site: its BCS, as storage nodes answer it. `None` for one larger than objects may be.
pub(super) fn sliver_object(
    outside: OutsideId,
    metadata: &Metadata,
    axis: AxisKind,
    PairIndex(pair): PairIndex,
) -> Option<SiteObject> {
    let mut descriptor = metadata.id().as_bytes().to_vec();
    descriptor.push(match axis {
        AxisKind::Primary => 0,
        AxisKind::Secondary => 1,
    });
    descriptor.extend_from_slice(&pair.to_be_bytes());
    let id = hash(&[b"haulout sliver 1\0", outside.as_bytes(), &descriptor]);
    let data = match axis {
        AxisKind::Primary => metadata.sliver_len::<Primary>(),
        AxisKind::Secondary => metadata.sliver_len::<Secondary>(),
    };
    Some(SiteObject {
        key: SiteKey { kind: SiteKind::Sliver, id },
        size: Some(Cut::new(bcs_len(data))?),
        outside,
        descriptor: descriptor.into(),
    })
}

/// What an object of this place stands for, as far as its descriptor tells; whether its name and size fit is to be looked at.
pub(super) fn named(object: &SiteObject) -> Option<Named> {
    let (blob, rest) = object.descriptor.split_first_chunk::<32>()?;
    let blob = BlobId(*blob);
    match (object.key.kind, rest) {
        (SiteKind::BlobMetadata, []) => Some(Named::Metadata(blob)),
        (SiteKind::Sliver, &[axis @ (0 | 1), high, low]) => {
            let axis = if axis == 0 { AxisKind::Primary } else { AxisKind::Secondary };
            Some(Named::Sliver(blob, axis, PairIndex(u16::from_be_bytes([high, low]))))
        }
        _ => None,
    }
}

/// Bytes of the BCS of a sliver with so many bytes of data: their number (ULEB128), they, symbol size, index.
pub(super) fn bcs_len(data: usize) -> u64 {
    let bits = usize::BITS - data.max(1).leading_zeros();
    u64::from(bits.div_ceil(7)) + data as u64 + 4
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use redstuff::{ShardCount, SliverIndex};

    #[test]
    fn lengths_are_those_of_the_wire() {
        for length in [0, 1, 5000, 100_000, 1_500_000] {
            let encoded = ShardCount::new(10).unwrap().encode(vec![7; length]).unwrap();
            let metadata = encoded.metadata();
            let primary = encoded.sliver(SliverIndex::<Primary>::new(0)).unwrap().to_bcs();
            assert_eq!(bcs_len(metadata.sliver_len::<Primary>()), primary.len() as u64);
            let secondary = encoded.sliver(SliverIndex::<Secondary>::new(0)).unwrap().to_bcs();
            assert_eq!(bcs_len(metadata.sliver_len::<Secondary>()), secondary.len() as u64);
        }
    }

    #[test]
    fn descriptors_read_back_and_nothing_else_does() {
        let place = outside_id(b"test");
        let encoded = ShardCount::new(10).unwrap().encode(vec![7; 500]).unwrap();
        let (metadata, blob) = (encoded.metadata(), *encoded.metadata().id());
        let object = metadata_object(place, &blob);
        assert_eq!(named(&object), Some(Named::Metadata(blob)));
        let sliver = sliver_object(place, metadata, AxisKind::Secondary, PairIndex(258)).unwrap();
        assert_eq!(named(&sliver), Some(Named::Sliver(blob, AxisKind::Secondary, PairIndex(258))));
        for length in 0..40 {
            let descriptor = Bytes::from(vec![2; length]);
            assert_eq!(named(&SiteObject { descriptor, ..sliver.clone() }), None, "{length}");
        }
        let wrong = SiteObject { descriptor: sliver.descriptor.clone(), ..object };
        assert_eq!(named(&wrong), None);
    }
}
