//! Pushing what appears in the store, by policy.
//!
//! The queue is the store's own database: paths have numbers that only grow, and a small file says
//! up to which number everything was dealt with. So nothing is lost over a restart and nothing
//! can overflow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use haulout_nix::db::{Database, Follower, StoreLocation};
use haulout_nix::{KeySet, PathInfo};
use serde::{Deserialize, Serialize};

use crate::config::{PushWhat, Settings};
use crate::error::{Context, Outcome};
use crate::push::engine::{Engine, Event};
use crate::push::{open_target, read_key};

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The longest pause after a target that could not be written.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Paths pushed between two notes of how far it is.
const BATCH_MAX: usize = 256;
/// Times a path is tried before it is passed over: one that is damaged will stay so.
const TRIES_MAX: u32 = 3;

/// How far it is.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Mark {
    /// The number of the last path dealt with.
    last_id: i64,
}

/// Pushes for ever; does nothing when the settings name no target.
pub(crate) struct Pusher {
    database: Arc<Database>,
    /// Reads only what changed; away while a poll runs.
    follower: Option<Follower>,
    engine: Engine,
    what: PushWhat,
    own_keys: KeySet,
    trusted: KeySet,
    mark_file: PathBuf,
    mark: Option<Mark>,
    tries: u32,
}

impl Pusher {
    /// Opens target and keys. Blocking.
    pub(crate) fn open(
        settings: &Settings,
        location: StoreLocation,
        trusted: KeySet,
    ) -> Outcome<Option<Self>> {
        let Some(to) = &settings.push.to else { return Ok(None) };
        let target = open_target(to, settings.push.compression.as_deref(), &location)?;
        let keys: Vec<_> = settings
            .push
            .sign_key_files
            .iter()
            .map(|file| read_key(file))
            .collect::<Outcome<_>>()?;
        let own_keys = keys.iter().map(|key| key.public_key().clone()).collect();
        let database = Database::open(&location)
            .context(|| format!("cannot read the store database {}", location.db.display()))?;
        let database = Arc::new(database);
        let follower = Some(Follower::new(Arc::clone(&database)));
        // Another target begins with a mark of its own.
        let name = haulout_nix::NarHash::of(target.name().as_bytes()).to_nix32();
        let mark_file = settings.state.dir.join(format!("pushed-{}.json", &name[..16]));
        let mark = read_mark(&mark_file);
        let engine = Engine { location, target: Arc::new(target), keys, jobs: 1 };
        let what = settings.push.what;
        Ok(Some(Self {
            database,
            follower,
            engine,
            what,
            own_keys,
            trusted,
            mark_file,
            mark,
            tries: 0,
        }))
    }

    /// Looks at the store again and again.
    pub(crate) async fn run(mut self) {
        let mut pause = LOOK_EVERY;
        loop {
            match self.round().await {
                Ok(()) => pause = LOOK_EVERY,
                Err(failure) => {
                    tracing::warn!("not pushed: {}", failure.chain());
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn round(&mut self) -> Outcome<()> {
        self.poll().await?;
        loop {
            let (ids, infos) = self.next_batch()?;
            let Some(last_id) = ids else { return Ok(()) };
            if !infos.is_empty() {
                let mut failed = Vec::new();
                let summary = self.engine.push(infos, |event| match event {
                    Event::Failed { path, why, .. } => failed.push(format!("{path}: {why}")),
                    Event::Done { path, file_size: Some(_), .. } => tracing::info!(path, "pushed"),
                    Event::Done { .. } => {}
                });
                let summary = summary.await?;
                self.tries += 1;
                if summary.failed > 0 && self.tries < TRIES_MAX {
                    return Err(crate::error::Failure::new(failed.join("; ")));
                }
                for why in failed {
                    tracing::warn!("passed over: {why}");
                }
            }
            self.tries = 0;
            self.keep(Mark { last_id })?;
        }
    }

    async fn poll(&mut self) -> Outcome<()> {
        let database = Arc::clone(&self.database);
        let mut follower = self.follower.take().unwrap_or_else(|| Follower::new(database));
        let polled = tokio::task::spawn_blocking(move || (follower.poll().map(|_| ()), follower));
        let (polled, follower) =
            polled.await.context(|| "reading the store was cut off".to_owned())?;
        self.follower = Some(follower);
        polled.context(|| "cannot read the store database".to_owned())
    }

    /// The next paths that the policy wants, and the number of the last path looked at.
    fn next_batch(&mut self) -> Outcome<(Option<i64>, Vec<PathInfo>)> {
        let reading = || "cannot read the store database".to_owned();
        let rows = self.follower.as_ref().map(Follower::rows).unwrap_or_default();
        let newest = rows.last().map_or(0, |row| row.id);
        // The first time: from now on. `haulout push` is for what is there already.
        let mark = match self.mark {
            Some(mark) => mark,
            None => {
                let mark = Mark { last_id: newest };
                self.keep(mark)?;
                tracing::info!(
                    "what appears in the store from now on goes to {}",
                    self.engine.target.name()
                );
                mark
            }
        };
        let rows = self.follower.as_ref().map(Follower::rows).unwrap_or_default();
        let new = &rows[rows.partition_point(|row| row.id <= mark.last_id)..];
        let new = &new[..new.len().min(BATCH_MAX)];
        let last = new.last().map(|row| row.id);
        let mut infos = Vec::new();
        for row in new {
            if let Some(info) = self.database.path_info(&row.hash).context(reading)?
                && self.wants(&info)
            {
                infos.push(info);
            }
        }
        Ok((last, infos))
    }

    fn wants(&self, info: &PathInfo) -> bool {
        let dir = &self.engine.location.store_dir;
        if info.path.is_derivation() {
            return false;
        }
        match self.what {
            PushWhat::Local => {
                let ours = info.verified_by(dir, &self.own_keys).is_some();
                ours || (info.signatures.is_empty() && info.ca.is_none())
            }
            PushWhat::Signed => info.verified_by(dir, &self.trusted).is_some(),
        }
    }

    fn keep(&mut self, mark: Mark) -> Outcome<()> {
        let writing = || format!("cannot write {}", self.mark_file.display());
        let temporary = self.mark_file.with_extension("new");
        let text = serde_json::to_string(&mark).context(writing)?;
        std::fs::write(&temporary, text).context(writing)?;
        std::fs::rename(&temporary, &self.mark_file).context(writing)?;
        self.mark = Some(mark);
        Ok(())
    }
}

/// What cannot be read counts as never written: then it begins with what comes from now on.
fn read_mark(file: &Path) -> Option<Mark> {
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}
