//! BLAKE2b-256 and the Merkle node hashes, many at a time.

use std::fmt;

use blake2b_simd::Params;
use data_encoding::HEXLOWER;

/// A 32-byte BLAKE2b digest (32-byte output length, no key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

/// Stands in for a missing right sibling. No digest of anything is known to have this value.
pub(crate) const EMPTY: Digest = Digest([0; 32]);

/// Domain separation of leaves.
const LEAF: u8 = 0;
/// Domain separation of inner nodes.
const INNER: u8 = 1;

fn digest(parts: [&[u8]; 3]) -> Digest {
    let mut state = Params::new().hash_length(32).to_state();
    for part in parts {
        state.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    Digest(out)
}

/// BLAKE2b with 32 bytes of output.
pub(crate) fn blake2b256(data: &[u8]) -> Digest {
    digest([data, &[], &[]])
}

/// The hash of a Merkle leaf.
pub(crate) fn leaf(data: &[u8]) -> Digest {
    digest([&[LEAF], data, &[]])
}

/// The hash of an inner Merkle node.
pub(crate) fn inner(left: &Digest, right: &Digest) -> Digest {
    digest([&[INNER], &left.0, &right.0])
}

/// The leaf hashes of equally long symbols that follow each other in `symbols`.
pub(crate) fn leaves(symbols: &[u8], size: usize, out: &mut [Digest]) {
    debug_assert_eq!(symbols.len(), size * out.len());
    for (symbol, out) in symbols.chunks_exact(size).zip(out) {
        *out = leaf(symbol);
    }
}

/// Replaces the first half of `nodes` by the parents of neighbours; a missing last
/// sibling is [`EMPTY`]. Returns how many parents there are.
pub(crate) fn parents(nodes: &mut [Digest]) -> usize {
    let count = nodes.len().div_ceil(2);
    for i in 0..count {
        let right = nodes.get(2 * i + 1).copied().unwrap_or(EMPTY);
        nodes[i] = inner(&nodes[2 * i], &right);
    }
    count
}

/// Replaces each of `left` by the parent of it and its counterpart in `right`, or
/// [`EMPTY`] if there is no right side.
pub(crate) fn parents_across(left: &mut [Digest], right: Option<&[Digest]>) {
    for (i, node) in left.iter_mut().enumerate() {
        let right = right.map_or(EMPTY, |right| right[i]);
        *node = inner(node, &right);
    }
}
