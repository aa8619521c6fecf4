//! What proofs weigh and what checking them costs, for small and large committees.
//!
//! `cargo bench -p haulout-sui --features testing`. Besides the usual timings it prints the
//! size of each kind of proof, and the CPU seconds that following one archive takes a day:
//! 24 updates, one change of validators.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails by panicking")]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use haulout_sui::{
    ObjectId,
    proof::{
        Expected, ExpectedOwner, ObjectProof, Trust,
        testing::{Chain, PACKAGE, plain_object},
    },
};
use rustix::time::{ClockId, clock_gettime};

const VALIDATORS: [u16; 2] = [4, 128];
const UPDATES_A_DAY: u32 = 24;

fn expected() -> Expected {
    Expected {
        id: ObjectId([0x42; 32]),
        type_: Some((Some(PACKAGE), "archive", "Archive")),
        owner: ExpectedOwner::SharedOrFrozen,
    }
}

/// An archive of eight levels.
fn write(chain: &mut Chain, tree: bool) -> ObjectProof {
    chain.write(&plain_object(0x42, 7, vec![1; 8 * 117 + 120]), tree)
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap()).as_secs_f64()
}

fn cpu_of(times: u32, mut action: impl FnMut()) -> f64 {
    let before = cpu();
    (0..times).for_each(|_| action());
    (cpu() - before) / f64::from(times)
}

fn proofs(criterion: &mut Criterion) {
    for validators in VALIDATORS {
        let mut chain = Chain::new(500, validators);
        for (kind, tree) in [("effects", false), ("tree", true)] {
            let proof = write(&mut chain, tree);
            let bytes = proof.to_bytes().unwrap();
            let mut trust = chain.trust();
            proof.verify(&mut trust, &expected()).unwrap();
            criterion.bench_function(&format!("verify/{kind}/{validators}"), |bencher| {
                bencher.iter(|| {
                    let proof = ObjectProof::from_bytes(&bytes).unwrap();
                    proof.verify(&mut trust, &expected()).unwrap()
                });
            });
            let again = cpu_of(50, || {
                let proof = ObjectProof::from_bytes(&bytes).unwrap();
                proof.verify(&mut trust, &expected()).unwrap();
            });
            println!(
                "{kind} proof, {validators} validators: {} bytes, {:.2} ms CPU each",
                bytes.len(),
                again * 1e3
            );
        }
        let proof = write(&mut chain, false);
        let prepared = cpu_of(5, || {
            // A fresh trust prepares the committee's keys anew.
            let mut trust: Trust = chain.trust();
            proof.verify(&mut trust, &expected()).unwrap();
        });
        let mut trust = chain.trust();
        proof.verify(&mut trust, &expected()).unwrap();
        let verified = cpu_of(20, || {
            proof.verify(&mut trust, &expected()).unwrap();
        });
        let end = chain.next_epoch();
        println!(
            "{validators} validators: end of epoch {} bytes; one archive, {UPDATES_A_DAY} updates \
             and one epoch a day: {:.3} CPU seconds a day",
            end.as_bytes().len(),
            // The day's new committee is prepared once, for its first proof; the end of the
            // epoch is one more signature under the old one.
            prepared + verified * f64::from(UPDATES_A_DAY)
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = proofs
}
criterion_main!(benches);
