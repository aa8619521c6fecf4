//! What status pages see.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use haulout_swarm::directory::Directory;
use haulout_swarm::peers::{Peer, PeerTable, State};
use haulout_swarm::{Fault, Now, PeerId};

use super::{Entry, Shared, read};
use crate::view::{PeerState, PeerView};

impl Shared {
    pub(crate) fn views(&self) -> Vec<PeerView> {
        let now = self.now();
        let hints = read(&self.hints);
        let peers = self.lock_peers();
        let mut views: Vec<PeerView> = peers
            .entries
            .iter()
            .map(|(peer, entry)| view(peer, entry, &peers.table, &hints, now))
            .collect();
        views.sort_by_key(|view| (view.state != PeerState::Connected, view.id));
        views
    }
}

fn view(peer: &PeerId, entry: &Entry, table: &PeerTable, hints: &Directory, now: Now) -> PeerView {
    let link = entry.link();
    let banned_for = match table.state(peer, now) {
        Some(State::Banned { until, .. }) => Some(until.since(now)),
        _ => None,
    };
    let state = match link {
        _ if banned_for.is_some() => PeerState::Banned,
        Some(link) if link.silent.load(Ordering::Relaxed) => PeerState::Silent,
        Some(_) => PeerState::Connected,
        None if entry.dialling => PeerState::Dialling,
        None => PeerState::Known,
    };
    let mut addrs: Vec<SocketAddr> = link.map(|link| link.addr()).into_iter().collect();
    addrs.extend(entry.addrs.iter().filter(|addr| link.is_none_or(|link| link.addr() != **addr)));
    let wire = link.map(|link| link.conn.stats());
    let record = table.get(peer);
    let heard = record.map(|record| now.since(record.last_heard()));
    PeerView {
        id: *peer,
        addrs,
        membership: link.map_or(entry.membership, |link| link.membership),
        state,
        rtt: link.map(|link| link.conn.rtt()),
        holdings: hints.version(peer).map(|_| hints.entries(peer)),
        holdings_in_part: hints.knows_part(peer),
        bytes_given: entry.stats.given.load(Ordering::Relaxed),
        bytes_taken: entry.stats.taken.load(Ordering::Relaxed),
        wire_sent: wire.as_ref().map_or(0, |wire| wire.udp_tx.bytes),
        wire_received: wire.as_ref().map_or(0, |wire| wire.udp_rx.bytes),
        asked_us: entry.stats.asked_us.load(Ordering::Relaxed),
        asked_it: entry.stats.asked_it.load(Ordering::Relaxed),
        throughput: record.and_then(Peer::throughput),
        heard_ago: link.map(|link| link.quiet_for(Instant::now())).or(heard),
        faults: entry.faults.iter().sum(),
        faults_by_kind: Fault::ALL
            .into_iter()
            .zip(entry.faults)
            .filter(|(_, count)| *count > 0)
            .collect(),
        banned_for,
        reasons: entry.reasons.iter().cloned().collect(),
        discovered: entry.discovered,
    }
}
