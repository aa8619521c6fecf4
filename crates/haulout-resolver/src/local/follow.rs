//! Keeping up with the store, and telling the mesh.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use haulout_mesh::Membership;
use haulout_nix::HashPart;
use haulout_nix::db::{DbError, Row, Signers};

use super::index::{Checked, Standing};
use super::{LocalStore, SharePolicy};

/// How often the store's database is looked at. Nothing changed: a few `stat`s.
pub(crate) const POLL_EVERY: Duration = Duration::from_secs(1);
/// How soon after a NAR was delivered the store is looked at, so that peers
/// learn quickly what they can have from here. Nix needs a moment to register
/// the path.
pub(crate) const POLL_SOON: Duration = Duration::from_millis(200);
/// How often the cache is written out.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// Writes out what is remembered.
pub(crate) type Write = Box<dyn Fn() + Send>;

/// Asks the following thread to look soon. The thread ends when this is gone.
#[derive(Clone, Debug)]
pub(crate) struct Poke(SyncSender<()>);

impl Poke {
    pub(crate) fn soon(&self) {
        match self.0.try_send(()) {
            // Full: it was asked already.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// Starts the thread that follows the store and writes out, now and then and
/// at the end, what is remembered.
pub(crate) fn follow(store: &Arc<LocalStore>, write: Write) -> std::io::Result<Poke> {
    // From here on, what is new in the store is hashed before it is asked for.
    let ahead = super::ahead::start(store)?;
    let _ = store.ahead.set(ahead);
    let (poke, pokes) = sync_channel(1);
    let store = Arc::downgrade(store);
    std::thread::Builder::new().name("haulout-store".into()).spawn(move || {
        run(&store, &pokes, &write);
        write();
    })?;
    Ok(Poke(poke))
}

fn run(store: &Weak<LocalStore>, pokes: &Receiver<()>, write: &Write) {
    let mut failing = false;
    let mut written = Instant::now();
    loop {
        match pokes.recv_timeout(POLL_EVERY) {
            Ok(()) => std::thread::sleep(POLL_SOON),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(store) = store.upgrade() else { return };
        match store.poll() {
            Ok(()) => failing = false,
            // Said once; a database that cannot be read stays so for a while.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "cannot follow the store database, will go on trying");
            }
            Err(_) => {}
        }
        store.sweep_kept();
        if written.elapsed() >= WRITE_EVERY {
            write();
            written = Instant::now();
        }
    }
}

impl LocalStore {
    /// Takes over what changed in the store since the last time.
    pub(crate) fn poll(&self) -> Result<(), DbError> {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = follower.poll()?;
        if changes.is_empty() {
            return Ok(());
        }
        let policy = self.policy.load_full();
        let signers = follower.signers();
        let mut gone = changes.removed;
        gone.extend(changes.changed.iter().map(|row| row.hash));
        for hash in &gone {
            self.infos.remove(hash);
            self.layouts.forget(hash);
        }
        let come: Vec<_> = changes
            .added
            .iter()
            .chain(&changes.changed)
            .map(|row| (row.hash, standing(&policy, signers, row)))
            .collect();
        self.change(&policy, gone, come);
        if let Some(ahead) = self.ahead.get() {
            changes.added.iter().for_each(|row| ahead.note(row.hash));
        }
        Ok(())
    }

    /// Shares by another policy from now on.
    pub fn set_policy(&self, policy: SharePolicy) {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.policy.swap(Arc::new(policy));
        let policy = self.policy.load_full();
        let all: Vec<_> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.iter().collect()
        };
        self.announce(&old, &all, &[]);
        let signers = follower.signers();
        let come: Vec<_> =
            follower.rows().iter().map(|row| (row.hash, standing(&policy, signers, row))).collect();
        {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            index.remove(all.iter().map(|(hash, _)| *hash).collect());
            index.insert(come.iter().copied());
        }
        self.announce(&policy, &[], &come);
        self.judge_kept(&old, &policy);
    }

    fn change(&self, policy: &SharePolicy, gone: Vec<HashPart>, come: Vec<(HashPart, Standing)>) {
        let gone = {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            let gone = index.remove(gone);
            index.insert(come.iter().copied());
            gone
        };
        self.announce(policy, &gone, &come);
    }

    pub(super) fn announce(
        &self,
        policy: &SharePolicy,
        gone: &[(HashPart, Standing)],
        come: &[(HashPart, Standing)],
    ) {
        for (feed, audience) in
            [(&self.strangers, Membership::Stranger), (&self.members, Membership::Member)]
        {
            let prefixes = |paths: &[(HashPart, Standing)]| -> Vec<u32> {
                let allowed =
                    paths.iter().filter(|(_, standing)| policy.allows(*standing, audience));
                allowed.map(|(hash, _)| hash.prefix()).collect()
            };
            feed.change(prefixes(gone), prefixes(come));
        }
    }

    /// Announces to everybody what else this machine gives to everybody, by the first 32 bits of its names.
    pub(crate) fn announce_public(&self, gone: &[u32], come: &[u32]) {
        for feed in [&self.strangers, &self.members] {
            feed.change(gone.iter().copied(), come.iter().copied());
        }
    }

    /// Notes what the check of a claimed signature said; a false claim is
    /// no longer announced.
    pub(super) fn note_checked(&self, hash: &HashPart, checked: Checked) {
        let before = {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            index.set_checked(hash, checked)
        };
        if let Some(before) = before {
            self.announce_checked(hash, before, checked);
        }
    }

    pub(super) fn announce_checked(&self, hash: &HashPart, before: Standing, checked: Checked) {
        let after = Standing { checked, ..before };
        if before.is_public() != after.is_public() {
            self.announce(&self.policy.load(), &[(*hash, before)], &[(*hash, after)]);
        }
    }
}

fn standing(policy: &SharePolicy, signers: &Signers, row: &Row) -> Standing {
    let names = signers.names(row.signers).iter().map(AsRef::as_ref);
    Standing::new(policy.classify(names, row.content_addressed))
}
