//! Encoding and verifying as walrus-core does: a call of the code for every column and
//! row, one hash after the other.

use blake2::{Blake2b, Digest, digest::consts::U32};
use redstuff::ShardCount;
use reed_solomon_simd::ReedSolomonEncoder;

type Node = [u8; 32];

fn hash(parts: &[&[u8]]) -> Node {
    let mut hash = Blake2b::<U32>::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn leaf(data: &[u8]) -> Node {
    hash(&[&[0], data])
}

fn root(mut nodes: Vec<Node>) -> Node {
    while nodes.len() > 1 {
        if !nodes.len().is_multiple_of(2) {
            nodes.push([0; 32]);
        }
        nodes = nodes.chunks(2).map(|pair| hash(&[&[1], &pair[0], &pair[1]])).collect();
    }
    nodes[0]
}

/// Recovery symbols of one code word.
fn recovery<'a>(
    encoder: &mut ReedSolomonEncoder,
    symbols: impl Iterator<Item = &'a [u8]>,
) -> Vec<Vec<u8>> {
    for symbol in symbols {
        encoder.add_original_shard(symbol).unwrap();
    }
    encoder.encode().unwrap().recovery_iter().map(<[u8]>::to_vec).collect()
}

/// The hashes of primary slivers.
pub(super) fn verify<'a>(n: ShardCount, rows: impl Iterator<Item = &'a [u8]>) -> u64 {
    let columns = n.columns();
    let mut sum = 0;
    for row in rows {
        let size = row.len() / columns;
        let mut encoder = ReedSolomonEncoder::new(columns, n.as_usize() - columns, size).unwrap();
        let recovery = recovery(&mut encoder, row.chunks(size));
        let leaves = row.chunks(size).map(leaf).chain(recovery.iter().map(|symbol| leaf(symbol)));
        sum += u64::from(root(leaves.collect())[0]);
    }
    sum
}

/// All slivers and the root over their hashes.
pub(super) fn encode(n: ShardCount, blob: &[u8]) -> u64 {
    let size = n.symbol_size(blob.len() as u64).unwrap().as_usize();
    let (rows, columns, n) = (n.rows(), n.columns(), n.as_usize());
    let mut primary = vec![vec![0; columns * size]; n];
    let mut secondary = vec![vec![0; rows * size]; n];
    for (row, data) in primary.iter_mut().zip(blob.chunks(columns * size)) {
        row[..data.len()].copy_from_slice(data);
    }
    let mut encoder = ReedSolomonEncoder::new(rows, n - rows, size).unwrap();
    for (j, sliver) in secondary.iter_mut().enumerate().take(columns) {
        for (symbol, row) in sliver.chunks_mut(size).zip(&primary) {
            symbol.copy_from_slice(&row[j * size..][..size]);
        }
        let recovery = recovery(&mut encoder, sliver.chunks(size));
        for (symbol, row) in recovery.iter().zip(&mut primary[rows..]) {
            row[j * size..][..size].copy_from_slice(symbol);
        }
    }
    let mut encoder = ReedSolomonEncoder::new(columns, n - columns, size).unwrap();
    let mut leaves = Vec::with_capacity(n * n);
    for (i, row) in primary.iter().enumerate() {
        let recovery = recovery(&mut encoder, row.chunks(size));
        leaves.extend(row.chunks(size).map(leaf));
        leaves.extend(recovery.iter().map(|symbol| leaf(symbol)));
        if i < rows {
            for (symbol, sliver) in recovery.iter().zip(&mut secondary[columns..]) {
                sliver[i * size..][..size].copy_from_slice(symbol);
            }
        }
    }
    let pair = |p: usize| {
        let row = root(leaves[p * n..][..n].to_vec());
        let column = root((0..n).map(|i| leaves[i * n + n - 1 - p]).collect());
        leaf(&[row, column].concat())
    };
    u64::from(root((0..n).map(pair).collect())[0])
}
