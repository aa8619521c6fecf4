//! Pushing a list of paths: NARs side by side, narinfos in order.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use haulout_nix::db::StoreLocation;
use haulout_nix::nar::dump;
use haulout_nix::{PathInfo, SecretKey};
use haulout_upstream::target::{Placed, Target, TargetError};
use serde::Serialize;

use crate::error::{Context, Outcome};

/// Most paths that are compressed at a time.
const JOBS_MAX: usize = 8;

/// As many as there are cores, within reason.
pub(crate) fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(JOBS_MAX)
}

/// What became of one path.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// It is in the target now.
    Done {
        path: String,
        nar_size: u64,
        /// Bytes written for it; none: it was there.
        file_size: Option<u64>,
    },
    /// It is not.
    Failed { path: String, nar_size: u64, why: String },
}

/// What became of all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) pushed: usize,
    pub(crate) there: usize,
    pub(crate) failed: usize,
    pub(crate) nar_bytes: u64,
    pub(crate) file_bytes: u64,
}

/// Pushes from one store to one target.
pub(crate) struct Engine {
    pub(crate) location: StoreLocation,
    pub(crate) target: Arc<Target>,
    /// Keys that sign what is pushed, besides the signatures it has.
    pub(crate) keys: Vec<SecretKey>,
    pub(crate) jobs: usize,
}

/// One path with its NAR in place.
enum Step {
    There(PathInfo),
    Ready(PathInfo, Placed),
    Failed(PathInfo, TargetError),
}

impl Engine {
    /// Pushes `infos`, which must be in an order that has references first. A path whose reference
    /// failed is pushed all the same: the reference may be in another cache.
    pub(crate) async fn push(
        &self,
        infos: Vec<PathInfo>,
        mut tell: impl FnMut(&Event),
    ) -> Outcome<Summary> {
        self.target.prepare().await.context(|| format!("cannot push to {}", self.target.name()))?;
        let mut summary = Summary::default();
        let steps = stream::iter(infos).map(|info| self.place(info)).buffered(self.jobs.max(1));
        let mut steps = std::pin::pin!(steps);
        while let Some(step) = steps.next().await {
            let event = self.finish(step, &mut summary).await;
            tell(&event);
        }
        Ok(summary)
    }

    async fn place(&self, info: PathInfo) -> Step {
        match self.target.has(info.path.hash_part()).await {
            Ok(true) => return Step::There(info),
            Ok(false) => {}
            Err(error) => return Step::Failed(info, error),
        }
        let path = self.location.real_path(&info.path);
        let placed = self.target.put_nar(&info, move |mut out| dump(&path, &mut out)).await;
        match placed {
            Ok(placed) => Step::Ready(info, placed),
            Err(error) => Step::Failed(info, error),
        }
    }

    async fn finish(&self, step: Step, summary: &mut Summary) -> Event {
        let (info, outcome) = match step {
            Step::There(info) => (info, Ok(None)),
            Step::Failed(info, error) => (info, Err(error)),
            Step::Ready(info, placed) => {
                let mut signed = info.clone();
                let dir = &self.location.store_dir;
                signed.signatures.extend(self.keys.iter().map(|key| info.sign(dir, key)));
                signed.normalise();
                let written = self.target.put_narinfo(signed, &placed).await;
                (info, written.map(|()| Some(placed)))
            }
        };
        let (path, nar_size) = (self.location.store_dir.display(&info.path), info.nar_size);
        match outcome {
            Ok(None) => {
                summary.there += 1;
                Event::Done { path, nar_size, file_size: None }
            }
            Ok(Some(placed)) => {
                summary.pushed += 1;
                summary.nar_bytes += nar_size;
                summary.file_bytes += if placed.was_there { 0 } else { placed.file_size };
                Event::Done { path, nar_size, file_size: Some(placed.file_size) }
            }
            Err(error) => {
                summary.failed += 1;
                let mut why = error.to_string();
                if let Some(cause) = std::error::Error::source(&error) {
                    why.push_str(&format!(": {cause}"));
                }
                Event::Failed { path, nar_size, why }
            }
        }
    }
}
