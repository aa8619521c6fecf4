//! What a CPU second does: encoding, verifying and decoding, for 1,000 and 100 shards.
//!
//! Everything is measured in CPU time of the process, on one thread, and given in MiB
//! of blob per CPU second. First a table compares with what walrus-core, the network's
//! own implementation, reached (measured elsewhere, one thread), and, in the same run,
//! with encoding done its way: one symbol per call of the code, one hash at a time.
//! `cargo bench -p redstuff` does both the table and Criterion's statistics.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

mod plain;

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, Throughput, criterion_group,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use redstuff::{
    Consistency, EncodedBlob, Primary, Secondary, ShardCount, Sliver, UnverifiedSliver, decode,
};
use rustix::time::{ClockId, clock_gettime};

/// Size of the blob, as in the figures of walrus-core.
const MIB: usize = 32;

/// CPU time of this process.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Criterion's clock for CPU time.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }
    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }
    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A blob that does not compress.
fn blob() -> Bytes {
    let mut state = 1u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..MIB << 17).flat_map(next).collect()
}

/// A blob and its slivers.
struct Case {
    n: ShardCount,
    blob: Bytes,
    encoded: EncodedBlob,
    systematic: Vec<Sliver<Primary>>,
    /// A third of the primary slivers, spread evenly.
    third: Vec<Sliver<Primary>>,
    /// The last secondary slivers, as many as needed.
    columns: Vec<Sliver<Secondary>>,
}

type Task = (&'static str, fn(&Case) -> u64);

/// What is measured.
const TASKS: [Task; 7] = [
    ("encode, every sliver", |case| {
        let encoded = case.n.encode(case.blob.clone()).unwrap();
        let rows = encoded.slivers::<Primary>().map(|sliver| u64::from(sliver.data()[0]));
        let columns = encoded.slivers::<Secondary>().map(|sliver| u64::from(sliver.data()[0]));
        rows.chain(columns).sum()
    }),
    ("blob id only", |case| u64::from(case.n.blob_id(&case.blob).unwrap().0[0])),
    ("verify primary slivers", |case| {
        let slivers = case.systematic.iter().map(Sliver::to_unverified).collect();
        let verified = UnverifiedSliver::verify_all(slivers, case.encoded.metadata());
        assert!(verified.iter().all(Result::is_ok));
        verified.len() as u64
    }),
    ("decode, all systematic", |case| case.decode(&case.systematic, Consistency::Skip)),
    ("decode, random third", |case| case.decode(&case.third, Consistency::Skip)),
    ("decode, third, default check", |case| case.decode(&case.third, Consistency::Default)),
    ("decode, secondary slivers", |case| case.decode(&case.columns, Consistency::Skip)),
];

/// MiB per CPU second of walrus-core for the same tasks, for 1,000 and 100 shards.
const WALRUS_CORE: [[f64; 7]; 2] = [
    [45.0, 48.0, 208.0, 560.0, 87.0, 69.0, 224.0],
    [176.0, 197.0, 644.0, 1302.0, 251.0, 200.0, 490.0],
];

impl Case {
    fn new(shards: u16, blob: Bytes) -> Self {
        let n = ShardCount::new(shards).unwrap();
        let encoded = n.encode(blob.clone()).unwrap();
        let rows = || encoded.slivers::<Primary>();
        Self {
            n,
            systematic: rows().take(n.rows()).collect(),
            third: rows().step_by(3).chain(rows().skip(1).step_by(3)).take(n.rows()).collect(),
            columns: encoded.slivers().skip(n.max_faulty().into()).collect(),
            blob,
            encoded,
        }
    }

    fn decode<A: redstuff::Axis>(&self, slivers: &[Sliver<A>], check: Consistency) -> u64 {
        let blob = decode(self.encoded.metadata(), slivers, check).unwrap();
        assert_eq!(blob.len(), self.blob.len());
        u64::from(blob[blob.len() - 1])
    }
}

/// Best of several runs, in MiB per CPU second.
fn rate(mut task: impl FnMut() -> u64) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = cpu_time();
        black_box(task());
        best = best.min((cpu_time() - start).as_secs_f64());
    }
    MIB as f64 / best
}

#[allow(clippy::print_stdout, reason = "the table is what this is for")]
fn table(cases: &[Case]) {
    println!("MiB of blob per CPU second, one thread, {MIB} MiB blob");
    println!("{:>6}  {:30} {:>9} {:>12} {:>6}", "shards", "", "redstuff", "walrus-core", "times");
    for (case, reference) in cases.iter().zip(WALRUS_CORE) {
        for ((name, task), reference) in TASKS.into_iter().zip(reference) {
            let found = rate(|| task(case));
            let times = found / reference;
            println!("{:>6}  {name:30} {found:9.0} {reference:12.0} {times:6.1}", case.n);
        }
        let encode = rate(|| plain::encode(case.n, &case.blob));
        let verify =
            rate(|| plain::verify(case.n, case.systematic.iter().map(|row| &row.data()[..])));
        println!(
            "{:>6}  {:30} {encode:9.0}  (the plain way, same run)",
            case.n, "encode, every sliver"
        );
        println!(
            "{:>6}  {:30} {verify:9.0}  (the plain way, same run)",
            case.n, "verify primary slivers"
        );
    }
}

fn statistics(criterion: &mut Criterion<CpuTime>) {
    let cases = cases();
    for (name, task) in TASKS {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Bytes((MIB << 20) as u64));
        for case in &cases {
            group.bench_with_input(BenchmarkId::from_parameter(case.n), case, |bencher, case| {
                bencher.iter(|| task(case));
            });
        }
        group.finish();
    }
}

fn cases() -> Vec<Case> {
    let blob = blob();
    [1000, 100].map(|shards| Case::new(shards, blob.clone())).into()
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = statistics
}

fn main() {
    // Per core: what several threads add is the system's business.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    // `cargo test` runs benches once to see that they work; the table would take long.
    if std::env::args().any(|argument| argument == "--bench") {
        table(&cases());
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
