//! Transfers from peers that lie, die, stall and come back.

mod large;
mod several;
mod shared;
mod small;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use haulout_nix::PathInfo;

use super::{Aside, Budget, CutReason, Reader, Transfers};
use crate::reasons::Reasons;
use crate::stats::Stats;
use crate::testing::Script;
use crate::trees::Trees;

const MIB: usize = 1 << 20;

/// Transfers over scripted peers.
struct World {
    transfers: Transfers,
    stats: Arc<Stats>,
    trees: Arc<Trees>,
    received: Arc<AtomicUsize>,
}

impl World {
    fn new(script: &Arc<Script>) -> Self {
        let (stats, trees) =
            (Arc::new(Stats::default()), Arc::new(Trees::new(crate::disk::Disk::default())));
        let received = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&received);
        let transfers = Transfers::new(
            Arc::clone(script) as _,
            Budget::new(super::BUDGET_BYTES),
            Arc::clone(&trees),
            Arc::clone(&stats),
            Arc::new(Reasons::new()),
            Aside { spool_dir: &std::env::temp_dir(), keeper: None },
            Box::new(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        );
        Self { transfers, stats, trees, received }
    }

    /// Everything from `from` on, or where it was cut and why.
    async fn read(&self, info: &PathInfo, from: u64) -> Result<Vec<u8>, (Vec<u8>, CutReason)> {
        let reader = self.transfers.open(info, None, from).await;
        drain(reader.ok_or((Vec::new(), CutReason::NoSource))?).await
    }
}

async fn drain(mut reader: Reader) -> Result<Vec<u8>, (Vec<u8>, CutReason)> {
    let mut all = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return Ok(all),
            Err(why) => return Err((all, why)),
        }
    }
}

/// What was delivered before a cut must be less than the whole.
fn assert_cut(result: Result<Vec<u8>, (Vec<u8>, CutReason)>, whole: &Bytes, why: CutReason) {
    let (delivered, reason) = result.expect_err("the stream had to be cut");
    assert!(delivered.len() < whole.len(), "the last piece went out");
    assert_eq!(reason, why);
}
