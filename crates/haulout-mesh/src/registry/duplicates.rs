//! One connection for each pair of peers: which of two stays, and what becomes of the other.
//!
//! Two come up when both ends dial at once, or when one end thinks that the first is dead and the other does not (it slept, or its
//! network did). Both ends judge by the same rule, but not with the same knowledge; if each closed the one it likes less,
//! both could go, and with them what is under way and what the peer holds. So only the peer with the smaller key closes
//! one. The other keeps its own choice in use and the second connection as a spare, and changes over when the first is
//! closed.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::dialling::{REDIAL_MIN, REDIAL_STRANGER};
use super::{ADDRS_MAX, Entry, Link, Shared, closed_with, code, lock, write};

/// How long a superseded connection stays open for what is under way on it.
const DUPLICATE_GRACE: Duration = Duration::from_millis(1_500);
/// How long a spare connection is kept for the peer to choose and to close one after its grace, also when it is busy.
const SPARE_FOR: Duration = Duration::from_secs(6);
/// Connections that came up within this of each other were dialled before either end knew of the other's. After that, who
/// dials has a reason to.
const AT_ONCE: Duration = Duration::from_secs(3);

/// What becomes of a new connection.
#[derive(Debug)]
pub(crate) enum Adopted {
    /// It is the peer's connection now. The one it replaces, if any, is to be left to [`Shared::part_from`].
    Kept(Option<Arc<Link>>),
    /// Another connection stays, unless the peer chooses this one: to run, and to be left to [`Shared::part_from`].
    Spare,
    /// Another connection stays: to be left to [`Shared::part_from`].
    Superseded,
    /// Close it at once with this code.
    Refused(u32),
}

impl Shared {
    /// Takes a new connection in, or not. Of two that came up at once, the one that the smaller key dialled is better; of two
    /// dialled by the same end, or at different times, the newer (whoever dialled it had lost the older).
    pub(crate) fn adopt(&self, link: &Arc<Link>) -> Adopted {
        if link.peer == self.id {
            return Adopted::Refused(code::SELF);
        }
        let now = self.now();
        let mut peers = self.lock_peers();
        if link.dialler != self.id && self.crowded(&peers, link) {
            return Adopted::Refused(code::FULL);
        }
        if !self.make_room(&mut peers, &link.peer, true) {
            return Adopted::Refused(code::FULL);
        }
        if !peers.table.connected(link.peer, now) {
            return Adopted::Refused(code::BANNED);
        }
        let entry = peers.entries.entry(link.peer).or_insert_with(|| Entry {
            stats: Arc::clone(&link.stats),
            ..Entry::new(Instant::now())
        });
        entry.failures = 0;
        entry.missing_since = None;
        entry.membership = link.membership;
        let old = entry.link.take().filter(|old| old.alive());
        let we_choose = self.id < link.peer;
        if let Some(old) = &old
            && stays(old, link)
        {
            entry.link = Some(Arc::clone(old));
            if we_choose {
                return Adopted::Superseded;
            }
            entry.spare = Some(Arc::clone(link));
            return Adopted::Spare;
        }
        entry.link = Some(Arc::clone(link));
        let addr = link.addr();
        entry.addrs.retain(|known| *known != addr);
        if link.dialler == self.id {
            // It answered there: try it first next time.
            entry.addrs.insert(0, addr);
            entry.addrs.truncate(ADDRS_MAX);
        }
        entry.spare = old.clone().filter(|_| !we_choose);
        Adopted::Kept(old)
    }

    /// Books the end of a connection. True if it was the peer's present one, and no spare takes its place.
    pub(crate) fn lost(&self, link: &Arc<Link>, reason: &quinn::ConnectionError) -> bool {
        let mut peers = self.lock_peers();
        let Some(entry) = peers.entries.get_mut(&link.peer) else {
            return false;
        };
        if same(entry.spare.as_ref(), link) {
            entry.spare = None;
        }
        if !same(entry.link.as_ref(), link) {
            return false;
        }
        entry.link = entry.spare.take().filter(|spare| spare.alive());
        if let Some(spare) = &entry.link {
            // It may have been called silent long ago.
            spare.quiet_for(Instant::now());
            return false;
        }
        entry.missing_since = closed_with(reason).is_none().then(Instant::now);
        let pause = match closed_with(reason) {
            Some(code::STRANGER) => REDIAL_STRANGER,
            Some(code::SHUTDOWN | code::FULL) => REDIAL_MIN * 4,
            _ => REDIAL_MIN / 2,
        };
        entry.next_dial = Instant::now() + pause;
        peers.table.disconnected(&link.peer);
        drop(peers);
        let mut hints = write(&self.hints);
        // Unless the next connection is up already, and its holdings may be in.
        if self.link(&link.peer).is_none() {
            hints.remove_peer(&link.peer);
            lock(&self.homes).gone(&link.peer);
        }
        drop(hints);
        self.wake.notify_one();
        true
    }

    /// Ends the connection that did not stay, when its time has come: at the end that chooses, after a grace; at the other, if
    /// the first has not chosen by then.
    pub(crate) fn part_from(self: &Arc<Self>, link: Arc<Link>) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            sleep(if shared.id < link.peer { DUPLICATE_GRACE } else { SPARE_FOR }).await;
            if shared.place_of(&link) != Some(Place::Present) {
                link.close(code::DUPLICATE, "another connection is in use");
            }
        });
    }

    /// Which of its peer's connections this is, if it is one.
    pub(super) fn place_of(&self, link: &Arc<Link>) -> Option<Place> {
        let peers = self.lock_peers();
        let entry = peers.entries.get(&link.peer)?;
        if same(entry.link.as_ref(), link) {
            Some(Place::Present)
        } else {
            same(entry.spare.as_ref(), link).then_some(Place::Spare)
        }
    }
}

/// Which of a peer's connections one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Present,
    Spare,
}

/// Whether a new connection of the same pair does not take the old one's place.
fn stays(old: &Link, new: &Link) -> bool {
    old.dialler < new.dialler && old.born.elapsed() < AT_ONCE && !old.silent.load(Ordering::Relaxed)
}

fn same(one: Option<&Arc<Link>>, other: &Arc<Link>) -> bool {
    one.is_some_and(|one| Arc::ptr_eq(one, other))
}
