//! BLAKE2b-256 and the Merkle node hashes, many at a time.
//!
//! A blob for 1,000 shards has a million symbols, so about three million short hashes
//! decide how fast it is encoded. They are independent of each other: with AVX-512
//! eight are computed side by side ([`wide`]), else as many as `blake2b_simd` can.

mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod wide;

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

/// A node of a Merkle tree while it is being computed.
pub(crate) type Node = [u8; 32];

/// Stands in for a missing right sibling. No digest of anything is known to have this value.
pub(crate) const EMPTY: Node = [0; 32];

/// Domain separation of leaves.
const LEAF: u8 = 0;
/// Domain separation of inner nodes.
const INNER: u8 = 1;

fn params() -> Params {
    let mut params = Params::new();
    params.hash_length(32);
    params
}

fn digest(parts: [&[u8]; 3]) -> Node {
    let mut state = params().to_state();
    for part in parts {
        state.update(part);
    }
    node(&state.finalize())
}

fn node(hash: &blake2b_simd::Hash) -> Node {
    let mut out = EMPTY;
    out.copy_from_slice(hash.as_bytes());
    out
}

/// BLAKE2b with 32 bytes of output.
pub(crate) fn blake2b256(data: &[u8]) -> Node {
    digest([data, &[], &[]])
}

/// The hash of a Merkle leaf.
pub(crate) fn leaf(data: &[u8]) -> Node {
    digest([&[LEAF], data, &[]])
}

/// The hash of an inner Merkle node.
pub(crate) fn inner(left: &Node, right: &Node) -> Node {
    digest([&[INNER], left, right])
}

/// The leaf hashes of equally long symbols that follow each other in `symbols`.
pub(crate) fn leaves(symbols: &[u8], size: usize, out: &mut [Node]) {
    debug_assert_eq!(symbols.len(), size * out.len());
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = wide::token() {
        return wide::leaves(token, symbols, size, out);
    }
    portable::leaves(symbols, size, out);
}

/// The leaf hashes of a run of equally long symbols that come in pieces.
#[derive(Clone)]
pub(crate) enum Unfinished {
    #[cfg(target_arch = "x86_64")]
    Wide(wide::Unfinished),
    Portable(Vec<blake2b_simd::State>),
}

impl Unfinished {
    /// Begins `count` hashes.
    pub(crate) fn new(count: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = wide::token() {
            return Self::Wide(wide::Unfinished::new(token, count));
        }
        Self::portable(count)
    }

    fn portable(count: usize) -> Self {
        let mut state = params().to_state();
        state.update(&[LEAF]);
        Self::Portable(vec![state; count])
    }

    /// Takes the next `piece` bytes of every symbol, which begin `stride` bytes apart; unless
    /// they are the last, `piece` is a multiple of 128.
    pub(crate) fn update(&mut self, pieces: &[u8], stride: usize, piece: usize, last: bool) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(hashes) => hashes.update(pieces, stride, piece, last),
            Self::Portable(states) => {
                let pieces = pieces.chunks(stride).map(|symbol| &symbol[..piece]);
                blake2b_simd::many::update_many(states.iter_mut().zip(pieces));
            }
        }
    }

    /// The hashes, once the last pieces are in.
    pub(crate) fn finish(&self, out: &mut [Node]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(hashes) => hashes.finish(out),
            Self::Portable(states) => {
                for (state, out) in states.iter().zip(out) {
                    *out = node(&state.finalize());
                }
            }
        }
    }
}

/// Replaces the first half of `nodes` by the parents of neighbours; a missing last
/// sibling is [`EMPTY`]. Returns how many parents there are.
pub(crate) fn parents(nodes: &mut [Node]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = wide::token() {
        return wide::parents(token, nodes);
    }
    portable::parents(nodes)
}

/// Replaces each of `left` by the parent of it and its counterpart in `right`, or
/// [`EMPTY`] if there is no right side.
pub(crate) fn parents_across(left: &mut [Node], right: Option<&[Node]>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = wide::token() {
        return wide::parents_across(token, left, right);
    }
    portable::parents_across(left, right);
}
