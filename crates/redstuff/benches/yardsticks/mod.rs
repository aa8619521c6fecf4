//! What the parts cost by themselves on this machine, in this run.

use blake2::{Blake2b, Digest, digest::consts::U32};
use blake2b_simd::{
    Params,
    many::{HashManyJob, hash_many},
};
use bytes::Bytes;
use redstuff::ShardCount;
use reed_solomon_simd::ReedSolomonEncoder;

type Yardstick = (&'static str, Box<dyn FnMut() -> u64>);

/// Symbols of 100 shards for a blob of this size.
fn symbol(blob: &[u8]) -> usize {
    ShardCount::new(100).unwrap().symbol_size(blob.len() as u64).unwrap().as_usize()
}

/// All of them; each goes over the whole blob once.
pub(super) fn all(blob: &Bytes) -> Vec<Yardstick> {
    let (a, b, c, d, e) = (blob.clone(), blob.clone(), blob.clone(), blob.clone(), blob.clone());
    let mut used = vec![0; blob.len()];
    vec![
        (
            "copy into memory used before",
            Box::new(move || {
                used.copy_from_slice(&a);
                u64::from(used[used.len() / 2])
            }),
        ),
        ("copy into fresh memory", Box::new(move || u64::from(b.to_vec()[b.len() / 2]))),
        (
            "BLAKE2b-256, one at a time (blake2)",
            Box::new(move || {
                let hash = |symbol| u64::from(Blake2b::<U32>::digest(symbol)[0]);
                c.chunks(symbol(&c)).map(hash).sum()
            }),
        ),
        (
            "BLAKE2b-256, several at a time (blake2b_simd)",
            Box::new(move || {
                let mut params = Params::new();
                params.hash_length(32);
                let mut jobs: Vec<_> =
                    d.chunks(symbol(&d)).map(|symbol| HashManyJob::new(&params, symbol)).collect();
                hash_many(jobs.iter_mut());
                jobs.iter().map(|job| u64::from(job.to_hash().as_bytes()[0])).sum()
            }),
        ),
        (
            "Reed-Solomon 67 + 33, long shards (reed-solomon-simd)",
            Box::new(move || {
                let size = e.len() / 67 / 64 * 64;
                let mut encoder = ReedSolomonEncoder::new(67, 33, size).unwrap();
                for shard in e.chunks_exact(size).take(67) {
                    encoder.add_original_shard(shard).unwrap();
                }
                let result = encoder.encode().unwrap();
                result.recovery_iter().map(|shard| u64::from(shard[0])).sum()
            }),
        ),
    ]
}
