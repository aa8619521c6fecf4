//! Mixing of 64-bit numbers: a caller gives one random number, a function that needs several derives them.

/// The finaliser of splitmix64 over the next state: every input bit changes every output bit with probability one
/// half. Not cryptographic: nothing here keeps a secret.
pub(crate) const fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The `index`-th number in (0, 1] of the sequence that `seed` names.
pub(crate) fn unit(seed: u64, index: u64) -> f64 {
    // 53 bits fit a double exactly; never zero, so that its logarithm is finite.
    let bits = mix(seed ^ mix(index)) >> 11;
    (bits + 1) as f64 / (1u64 << 53) as f64
}
