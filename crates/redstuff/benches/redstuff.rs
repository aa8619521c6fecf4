//! What a CPU second does: encoding, verifying and decoding, for 1,000 and 100 shards.
//!
//! Everything is measured in CPU time of the process (user and system), on one thread, and
//! given in MiB of blob per CPU second. First tables compare with what walrus-core, the
//! network's own implementation, reached (measured elsewhere, one thread), and, in the same
//! run, with encoding done its way (one symbol per call of the code, one hash at a time) and
//! with yardsticks: copying memory, hashing, the Reed-Solomon library by itself.
//! `cargo bench -p redstuff` prints the tables and does Criterion's statistics;
//! `cargo bench -p redstuff -- TABLES` only prints the tables.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

mod memory;
mod plain;
mod yardsticks;

use std::{cell::RefCell, hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, Throughput, criterion_group,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use redstuff::{
    Consistency, EncodedBlob, Primary, Secondary, ShardCount, Sliver, UnverifiedSliver, decode,
    decode_into,
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
    /// Memory that is used again.
    used: RefCell<Used>,
}

#[derive(Default)]
struct Used {
    encoded: Option<EncodedBlob>,
    decoded: Vec<u8>,
}

/// Something to measure.
struct Task {
    name: &'static str,
    run: fn(&Case) -> u64,
    /// MiB per CPU second of walrus-core, for 1,000 and 100 shards.
    walrus_core: [f64; 2],
}

const TASKS: [Task; 9] = [
    Task {
        name: "encode, every sliver",
        run: |case| slivers(&case.n.encode(case.blob.clone()).unwrap()),
        walrus_core: [45.0, 176.0],
    },
    Task {
        name: "encode, every sliver, memory used before",
        run: |case| {
            let used = case.used.borrow_mut().encoded.take();
            let encoded = match used {
                Some(used) => case.n.encode_reusing(case.blob.clone(), used),
                None => case.n.encode(case.blob.clone()),
            };
            let encoded = encoded.unwrap();
            let sum = slivers(&encoded);
            case.used.borrow_mut().encoded = Some(encoded);
            sum
        },
        walrus_core: [45.0, 176.0],
    },
    Task {
        name: "blob id only",
        run: |case| u64::from(case.n.blob_id(&case.blob).unwrap().0[0]),
        walrus_core: [48.0, 197.0],
    },
    Task {
        name: "verify primary slivers",
        run: |case| {
            let slivers = case.systematic.iter().map(Sliver::to_unverified).collect();
            let verified = UnverifiedSliver::verify_all(slivers, case.encoded.metadata());
            assert!(verified.iter().all(Result::is_ok));
            verified.len() as u64
        },
        walrus_core: [208.0, 644.0],
    },
    Task {
        name: "decode, all systematic",
        run: |case| case.decode(&case.systematic, Consistency::Skip),
        walrus_core: [560.0, 1302.0],
    },
    Task {
        name: "decode, all systematic, memory used before",
        run: |case| {
            let blob = &mut case.used.borrow_mut().decoded;
            let metadata = case.encoded.metadata();
            decode_into(metadata, &case.systematic, Consistency::Skip, blob).unwrap();
            u64::from(blob[blob.len() - 1])
        },
        walrus_core: [560.0, 1302.0],
    },
    Task {
        name: "decode, random third",
        run: |case| case.decode(&case.third, Consistency::Skip),
        walrus_core: [87.0, 251.0],
    },
    Task {
        name: "decode, third, default check",
        run: |case| case.decode(&case.third, Consistency::Default),
        walrus_core: [69.0, 200.0],
    },
    Task {
        name: "decode, secondary slivers",
        run: |case| case.decode(&case.columns, Consistency::Skip),
        walrus_core: [224.0, 490.0],
    },
];

/// Makes every sliver.
fn slivers(encoded: &EncodedBlob) -> u64 {
    let rows = encoded.slivers::<Primary>().map(|sliver| u64::from(sliver.data()[0]));
    let columns = encoded.slivers::<Secondary>().map(|sliver| u64::from(sliver.data()[0]));
    rows.chain(columns).sum()
}

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
            used: RefCell::default(),
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
    for _ in 0..10 {
        let start = cpu_time();
        black_box(task());
        best = best.min((cpu_time() - start).as_secs_f64());
    }
    MIB as f64 / best
}

#[allow(clippy::print_stdout, reason = "the tables are what this is for")]
fn tables(cases: &[Case]) {
    println!("| yardstick | MiB/CPU s |\n| --- | --: |");
    for (name, task) in yardsticks::all(&cases[0].blob) {
        println!("| {name} | {:.0} |", rate(task));
    }
    println!("\n| shards | MiB of blob per CPU s | redstuff | walrus-core | times |");
    println!("| --: | --- | --: | --: | --: |");
    for (i, case) in cases.iter().enumerate() {
        for Task { name, run, walrus_core } in TASKS {
            let (found, reference) = (rate(|| run(case)), walrus_core[i]);
            let times = found / reference;
            println!("| {} | {name} | {found:.0} | {reference:.0} | {times:.1} |", case.n);
        }
        let encode = rate(|| plain::encode(case.n, &case.blob));
        let rows = || case.systematic.iter().map(|row| &row.data()[..]);
        let verify = rate(|| plain::verify(case.n, rows()));
        println!("| {} | encode the plain way, same run | {encode:.0} | | |", case.n);
        println!("| {} | verify the plain way, same run | {verify:.0} | | |", case.n);
    }
}

fn statistics(criterion: &mut Criterion<CpuTime>) {
    let cases = cases();
    for Task { name, run, .. } in TASKS {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Bytes((MIB << 20) as u64));
        for case in &cases {
            group.bench_with_input(BenchmarkId::from_parameter(case.n), case, |bencher, case| {
                bencher.iter(|| run(case));
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
        memory::table(MIB, blob);
        tables(&cases());
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
