//! What archives cost an agent: looking a path up in an index that is in memory, and checking proofs.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use haulout_archive::segment::page_shift_for;
use haulout_archive::testing::{self, Segment};
use haulout_depot::{Blobs, BoxFuture, DepotError, Kind, LevelRecord, Reader, State};
use haulout_devnet::{LocalNet, Plan};
use haulout_sui::proof::{Expected, ExpectedOwner, ObjectProof, Trust};
use haulout_sui::prover::Prover;
use redstuff::BlobId;

use super::figure::{Figure, Goal, median};
use crate::error::{Context, Failure, Outcome};

/// Paths in the index: the design's size.
const PATHS: u64 = 250_000;
/// Paths that are looked up, again and again: their pages fit into the agent's memory.
const WARM: usize = 200;
/// Look-ups timed.
const LOOK_UPS: usize = 20_000;
/// Sui's validators: mainnet has 125.
const VALIDATORS: usize = 128;
/// Proofs timed.
const PROOFS: usize = 40;
/// Updates of a busy archive, and new committees, in a day.
const UPDATES_A_DAY: f64 = 24.0;

pub(super) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the runtime".to_owned())
}

/// A blob store with one blob, in memory.
#[derive(Debug)]
struct One(Bytes);

impl Blobs for One {
    fn read(
        &self,
        _: BlobId,
        _: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.0.get(at(range.start)..at(range.end)).map(|part| self.0.slice_ref(part));
        Box::pin(async move {
            part.ok_or_else(|| DepotError::new(Kind::Unavailable, "outside the blob"))
        })
    }

    fn read_verified(
        &self,
        blob: BlobId,
        size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        self.read(blob, size, range)
    }
}

/// Look-ups with the pages in memory.
pub(super) fn look_ups() -> Outcome<Vec<Figure>> {
    let numbers = testing::sorted(PATHS);
    let keys: Vec<_> =
        numbers.iter().take(WARM * 100).map(|number| testing::path(*number).hash_part()).collect();
    let entries = numbers.iter().map(|number| testing::entry(*number, PATHS));
    let segment = Segment::write(entries, testing::packs(PATHS), page_shift_for(PATHS));
    let segment = segment.context(|| "cannot write an index".to_owned())?;
    let level = LevelRecord {
        root: segment.root,
        leaves: PATHS,
        blob: BlobId([1; 32]),
        object: [0; 32],
        size: segment.blob.len() as u64,
        end_epoch: 1,
    };
    let state = State {
        id: [0; 32],
        sequence: 1,
        updated_ms: 0,
        levels: vec![level],
        frozen: false,
        store_dir: "/nix/store".to_owned(),
        name: String::new(),
    };
    let blobs = Arc::new(One(segment.blob.into()));
    let times = runtime()?.block_on(async {
        let reader = Reader::open(blobs, state).await?;
        let mut times = Vec::with_capacity(LOOK_UPS);
        let some = keys.iter().step_by(100);
        for key in some.clone() {
            reader.find(key).await?;
        }
        for key in some.cycle().take(LOOK_UPS) {
            let begun = Instant::now();
            let found = reader.find(key).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            if found.is_none() {
                return Err(DepotError::new(Kind::Corrupt, "a path is not in the index"));
            }
        }
        Ok(times)
    });
    let times = times.context(|| "cannot read the index".to_owned())?;
    let middle = median(times).ok_or_else(|| Failure::new("nothing was looked up"))?;
    let what = format!("look-up in an index of {PATHS} paths, pages in memory, p50");
    Ok(vec![Figure::new(what, "us", middle).goal(Goal::AtMost(50.0))])
}

/// Proofs with as many validators as mainnet has.
pub(super) fn proofs() -> Outcome<Vec<Figure>> {
    let dir = tempfile::tempdir().context(|| "cannot make a temporary directory".to_owned())?;
    let plan = Plan { validators: VALIDATORS, ..Plan::new(dir.path()) };
    runtime()?.block_on(async {
        let net = LocalNet::start(&plan).await.context(|| "cannot start a network".to_owned())?;
        let measured = measure(&net).await;
        net.stop().await;
        measured
    })
}

async fn measure(net: &LocalNet) -> Outcome<Vec<Figure>> {
    let failed = || "cannot prove an object".to_owned();
    let prover = Prover::new(net.network(), None).context(failed)?;
    let expected = Expected {
        id: net.network().system_object,
        type_: None,
        owner: ExpectedOwner::SharedOrFrozen,
    };
    let newest = prover.newest(&expected, None).await.context(failed)?;
    let (proof, verified) = newest.ok_or_else(|| Failure::new(failed()))?;
    let document = proof.to_bytes().context(failed)?;
    let mut each = Vec::new();
    for _ in 0..PROOFS {
        let begun = Instant::now();
        let proof = ObjectProof::from_bytes(&document).context(failed)?;
        let again = prover.verify(&proof, &expected).await.context(failed)?;
        each.push(begun.elapsed().as_secs_f64() * 1e3);
        if again != verified {
            return Err(Failure::new("the same proof proves another object"));
        }
    }
    // The first one under a new committee prepares its keys.
    let committee = net.chain().validators(verified.epoch).ok_or_else(|| Failure::new(failed()))?;
    let mut trust = Trust::from_committee(committee).context(failed)?;
    let begun = Instant::now();
    proof.verify(&mut trust, &expected).context(failed)?;
    let first = begun.elapsed().as_secs_f64() * 1e3;
    let each = median(each).ok_or_else(|| Failure::new(failed()))?;
    // A new committee's link is one more signature of the old one.
    let day = (UPDATES_A_DAY * each + first + each) / 1e3;
    Ok(vec![
        Figure::new(format!("proof of an object by {VALIDATORS} validators, checked"), "ms", each),
        Figure::new(format!("the first one under a new committee of {VALIDATORS}"), "ms", first),
        Figure::new("all proofs of an archive that is updated every hour, in a day", "CPU s", day),
    ])
}
