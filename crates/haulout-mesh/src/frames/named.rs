//! Who holds something, as another peer knows it: the answer to [`super::Request::Locate`].

use haulout_swarm::PeerId;
use haulout_swarm::portions::NAMED_MAX;

use super::{FrameError, Reader, too_large};

/// Longest answer body.
pub const NAMED_BYTES_MAX: usize = 1 + NAMED_MAX * PeerId::BYTES;

/// Body of the answer: the first [`NAMED_MAX`] of these peers. `None` if there are none: then the answer is "no".
#[must_use]
pub fn encode_named(peers: &[PeerId]) -> Option<Vec<u8>> {
    let mut named = peers.get(..peers.len().min(NAMED_MAX))?.to_vec();
    named.sort_unstable();
    named.dedup();
    let count = u8::try_from(named.len()).ok().filter(|count| *count > 0)?;
    let mut out = Vec::with_capacity(NAMED_BYTES_MAX);
    out.push(count);
    named.iter().for_each(|peer| out.extend(peer.as_bytes()));
    Some(out)
}

/// Reads the answer: one to [`NAMED_MAX`] peers, strictly ascending.
///
/// # Errors
/// [`FrameError`].
pub fn decode_named(body: &[u8]) -> Result<Vec<PeerId>, FrameError> {
    let mut reader = Reader::new(body, "names");
    let count = usize::from(reader.u8()?);
    if count > NAMED_MAX {
        return Err(too_large("count of names", count, NAMED_MAX));
    }
    let mut named: Vec<PeerId> = Vec::with_capacity(count);
    for _ in 0..count {
        let peer = PeerId::from_bytes(reader.array()?);
        if named.last().is_some_and(|last| *last >= peer) {
            return Err(FrameError::Bad("order of names"));
        }
        named.push(peer);
    }
    reader.end()?;
    if named.is_empty() { Err(FrameError::Bad("count of names")) } else { Ok(named) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn names_have_one_form() {
        assert_eq!(encode_named(&[]), None);
        let body = encode_named(&[peer(9), peer(3), peer(9)]).unwrap();
        assert_eq!(body.len(), 65);
        assert_eq!(decode_named(&body), Ok(vec![peer(3), peer(9)]));
        let many: Vec<PeerId> = (0..200).map(peer).collect();
        let body = encode_named(&many).unwrap();
        assert_eq!(body.len(), NAMED_BYTES_MAX);
        assert_eq!(decode_named(&body), Ok(many[..NAMED_MAX].to_vec()));
    }

    #[test]
    fn other_forms_are_refused() {
        let good = encode_named(&[peer(3), peer(9)]).unwrap();
        assert!(decode_named(&[]).is_err());
        assert!(decode_named(&[0]).is_err(), "nobody is a no");
        assert!(decode_named(&good[..64]).is_err(), "cut short");
        assert!(decode_named(&[&good[..], &[0]].concat()).is_err(), "something follows");
        let mut bad = good.clone();
        bad[1..33].copy_from_slice(&[9; 32]);
        assert!(decode_named(&bad).is_err(), "named twice");
        bad[1..33].copy_from_slice(&[10; 32]);
        assert!(decode_named(&bad).is_err(), "not in order");
        let mut promised = vec![u8::MAX];
        promised.resize(1 + 255 * 32, 1);
        assert!(decode_named(&promised).is_err(), "too many");
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(named) = decode_named(&body) {
                prop_assert_eq!(encode_named(&named), Some(body));
            }
        }
    }
}
