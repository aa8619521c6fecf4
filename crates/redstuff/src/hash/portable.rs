//! Many hashes with `blake2b_simd`, which uses AVX2 where there is.

use blake2b_simd::many::{HashManyJob, MAX_DEGREE, hash_many};

use super::{EMPTY, INNER, LEAF, Node, node, params};

/// Hashes messages of `size` bytes that follow each other.
fn hash_all(messages: &[u8], size: usize, out: &mut [Node]) {
    let params = params();
    let groups = messages.chunks(size * MAX_DEGREE).zip(out.chunks_mut(MAX_DEGREE));
    for (messages, out) in groups {
        let mut jobs = messages.chunks(size).map(|message| HashManyJob::new(&params, message));
        let mut jobs: [_; MAX_DEGREE] =
            std::array::from_fn(|_| jobs.next().unwrap_or_else(|| HashManyJob::new(&params, &[])));
        let jobs = &mut jobs[..out.len()];
        hash_many(jobs.iter_mut());
        for (job, out) in jobs.iter().zip(out) {
            *out = node(&job.to_hash());
        }
    }
}

pub(super) fn leaves(symbols: &[u8], size: usize, out: &mut [Node]) {
    let mut messages = vec![LEAF; (size + 1) * MAX_DEGREE];
    for (symbols, out) in symbols.chunks(size * MAX_DEGREE).zip(out.chunks_mut(MAX_DEGREE)) {
        for (symbol, message) in symbols.chunks(size).zip(messages.chunks_mut(size + 1)) {
            message[1..].copy_from_slice(symbol);
        }
        hash_all(&messages[..(size + 1) * out.len()], size + 1, out);
    }
}

/// Hashes pairs of nodes.
fn inner_all(pairs: impl ExactSizeIterator<Item = (Node, Node)>, out: &mut [Node]) {
    let mut messages = [[INNER; 65]; MAX_DEGREE];
    let count = pairs.len();
    for (message, (left, right)) in messages.iter_mut().zip(pairs) {
        message[1..33].copy_from_slice(&left);
        message[33..].copy_from_slice(&right);
    }
    hash_all(messages[..count].as_flattened(), 65, &mut out[..count]);
}

pub(super) fn parents(nodes: &mut [Node]) -> usize {
    let count = nodes.len().div_ceil(2);
    for start in (0..count).step_by(MAX_DEGREE) {
        let lanes = MAX_DEGREE.min(count - start);
        let mut out = [EMPTY; MAX_DEGREE];
        let pair = |i: usize| (nodes[2 * i], nodes.get(2 * i + 1).copied().unwrap_or(EMPTY));
        inner_all((start..start + lanes).map(pair), &mut out[..lanes]);
        nodes[start..start + lanes].copy_from_slice(&out[..lanes]);
    }
    count
}

pub(super) fn parents_across(left: &mut [Node], right: Option<&[Node]>) {
    for (group, left) in left.chunks_mut(MAX_DEGREE).enumerate() {
        let right = |i: usize| right.map_or(EMPTY, |right| right[group * MAX_DEGREE + i]);
        let mut out = [EMPTY; MAX_DEGREE];
        inner_all((0..left.len()).map(|i| (left[i], right(i))), &mut out[..left.len()]);
        left.copy_from_slice(&out[..left.len()]);
    }
}
