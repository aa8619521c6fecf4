//! The archive object is changed.

use super::{OnChain, Publisher};
use crate::create::failed;
use haulout_depot::{DepotError, Kind, Update};
use haulout_sui::{
    ObjectId,
    tx::{self, Outcome, Ptb, Request, TxError},
};
use std::sync::PoisonError;

/// Puts the calls into a transaction.
type Calls<'a> = dyn Fn(&mut Ptb<'_>) -> Result<(), TxError> + Send + Sync + 'a;

impl OnChain {
    /// Makes the transaction; gives the new sequence.
    pub(super) async fn apply(&self, expected: u64, update: &Update) -> Result<u64, DepotError> {
        let publisher = self.publisher()?;
        let package = publisher.package;
        let archive = self.tracker.id();
        let done = match update {
            Update::Level { level, keep, place } => {
                let call = tx::Update {
                    expected,
                    root: level.root,
                    leaves: level.leaves,
                    end_epoch: level.end_epoch,
                    keep: keep.clone(),
                    place: *place,
                };
                self.put_level(publisher, ObjectId(level.stored.object), &call).await
            }
            Update::Extend { position, end_epoch } => {
                let none = || DepotError::new(Kind::Refused, "there is no such level");
                let state = self.newest().await?;
                let level = state.levels.get(*position as usize).ok_or_else(none)?;
                let blob = ObjectId(level.object);
                let what = format!(
                    "extend level {position} of archive {archive} after sequence {expected}"
                );
                let to = (expected, *position, *end_epoch);
                let calls = |ptb: &mut Ptb<'_>| ptb.archive_extend(package, (0, 1, 2), to);
                self.run(publisher, what, Some(blob), &calls).await
            }
            Update::Beat => {
                let what = format!("beat of archive {archive} after sequence {expected}");
                let calls = |ptb: &mut Ptb<'_>| ptb.archive_beat(package, (0, 1), expected);
                self.run(publisher, what, None, &calls).await
            }
        };
        match done {
            Ok(_) => {
                let now = expected.saturating_add(1);
                let mut known = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
                *known = (*known).max(now);
                Ok(now)
            }
            // The contract says why in a number; the state says it for certain.
            Err(error) => match self.newest().await {
                Ok(state) if state.sequence != expected => {
                    let message = "somebody else published to the archive in the meantime";
                    Err(DepotError::new(Kind::Conflict, message).because(error))
                }
                _ => Err(failed(error)),
            },
        }
    }

    /// Adds a level, with the certificate of its blob if that waits for it.
    async fn put_level(
        &self,
        publisher: &Publisher,
        blob: ObjectId,
        call: &tx::Update,
    ) -> Result<Outcome, TxError> {
        let (package, archive) = (publisher.package, self.tracker.id());
        let waiting =
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&blob).cloned();
        if let Some(with) = waiting {
            let objects = (archive, publisher.cap);
            return publisher.registrar.certify_and_update(package, objects, &with, call).await;
        }
        let what = format!("update archive {archive} after sequence {} with {blob}", call.expected);
        let calls = |ptb: &mut Ptb<'_>| ptb.archive_update(package, (0, 1, 2), call);
        self.run(publisher, what, Some(blob), &calls).await
    }

    /// Runs a transaction on the archive (object 0), by the cap (1), about a blob (2).
    async fn run(
        &self,
        publisher: &Publisher,
        purpose: String,
        blob: Option<ObjectId>,
        calls: &Calls<'_>,
    ) -> Result<Outcome, TxError> {
        let mut objects = vec![(self.tracker.id(), true), (publisher.cap, false)];
        objects.extend(blob.map(|blob| (blob, false)));
        let request = Request { purpose, wal: 0, objects, build: &|ptb| calls(ptb) };
        publisher.registrar.wallet().run(&request).await
    }
}
