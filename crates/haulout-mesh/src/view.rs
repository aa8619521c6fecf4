//! What status pages and commands see of the mesh.

use std::net::SocketAddr;
use std::time::Duration;

use haulout_swarm::{Fault, PeerId};

use crate::api::Membership;

/// How things stand with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Known from discovery or configuration, no connection at the moment.
    Known,
    /// A dial is in progress.
    Dialling,
    /// Connected and heard from lately.
    Connected,
    /// Connected on paper, but nothing was heard from it for several seconds.
    Silent,
    /// Refused until its ban ends.
    Banned,
}

/// One peer as this machine sees it, for status output.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its key.
    pub id: PeerId,
    /// Where it was seen, the address in use first.
    pub addrs: Vec<SocketAddr>,
    /// What it proved.
    pub membership: Membership,
    /// How things stand.
    pub state: PeerState,
    /// Smoothed round-trip time of the connection.
    pub rtt: Option<Duration>,
    /// How many paths it announced; `None` if it announces nothing.
    pub holdings: Option<usize>,
    /// That is only a portion of them: in a large network.
    pub holdings_in_part: bool,
    /// NAR bytes given to it (before compression).
    pub bytes_given: u64,
    /// NAR bytes taken from it (after decompression).
    pub bytes_taken: u64,
    /// UDP bytes sent to it on the present connection: smaller than `bytes_given` when compression pays.
    pub wire_sent: u64,
    /// UDP bytes received from it on the present connection.
    pub wire_received: u64,
    /// Requests it made.
    pub asked_us: u64,
    /// Requests made to it.
    pub asked_it: u64,
    /// Smoothed rate of its large answers, NAR bytes per second.
    pub throughput: Option<f64>,
    /// How long ago anything of it was last heard (of); `None` if nothing is remembered.
    pub heard_ago: Option<Duration>,
    /// How often it was blamed for something.
    pub faults: u64,
    /// The same by kind, those that never happened left out.
    pub faults_by_kind: Vec<(Fault, u64)>,
    /// How long it stays banned.
    pub banned_for: Option<Duration>,
    /// What it was last blamed for, newest last, at most eight.
    pub reasons: Vec<String>,
    /// From mDNS (`true`) or only from configuration or an incoming connection.
    pub discovered: bool,
}

/// Something happened that others may want to react to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// A connection was authenticated.
    Connected {
        /// Who.
        peer: PeerId,
        /// What it proved.
        membership: Membership,
    },
    /// A peer's last connection ended.
    Lost {
        /// Who.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// A peer's holdings changed.
    Holdings {
        /// Who.
        peer: PeerId,
        /// How many it announces now.
        count: usize,
    },
    /// A peer was blamed.
    Blamed {
        /// Who.
        peer: PeerId,
        /// For what, for people.
        reason: String,
        /// Whether it is banned now.
        banned: bool,
    },
}
