//! The answers of the control interface under `/api/v1/`, as JSON.
//!
//! The agent serialises these, the command line (and anybody's script) reads them. Every field has
//! a default, so a newer command line can talk to an older agent and the reverse; fields are added,
//! never given another meaning.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How far the agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// The port is open, the rest is not: every substituter question is answered 404.
    #[default]
    Starting,
    /// Everything runs.
    Serving,
    /// Open transfers are being finished, new ones refused.
    Stopping,
}

/// `GET /api/v1/status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// Version of the agent, as in its package.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// How far the agent is.
    pub state: AgentState,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// This agent's own key, full text form; `None` while starting or with the mesh off.
    pub peer_id: Option<String>,
    /// Name of the mesh this agent is a member of; `None` on an open site.
    pub mesh: Option<String>,
    /// Where the HTTP substituter listens.
    pub http_listen: Vec<SocketAddr>,
    /// Where the mesh listens (UDP).
    pub mesh_listen: Vec<SocketAddr>,
    /// The machine's own store.
    pub store: StoreReport,
    /// The cache on disk.
    pub cache: CacheReport,
    /// Everything that is counted since the start.
    pub counters: Counters,
    /// NARs being received or given away now.
    pub transfers: Vec<TransferReport>,
    /// What the user should know and could do something about.
    pub warnings: Vec<Warning>,
    /// What neighbours gave, over all runs of the agent.
    pub saved: SavedReport,
    /// What was offered and refused lately, newest first.
    pub refusals: Vec<RefusalReport>,
    /// Archives in use.
    pub archives: Vec<SourceReport>,
    /// HTTP, S3 and directory caches in use.
    pub upstreams: Vec<SourceReport>,
    /// The networks that agents may be looked for in, by interface.
    pub networks: Vec<NetworkReport>,
    /// There is a list of known networks, and none of them is here: only this machine's Nix is served.
    pub silent: bool,
    /// The Walrus network that blobs are read from; `None`: there is none.
    pub walrus: Option<WalrusReport>,
    /// Settings in force, `section.key` and value; files with secrets by name only.
    pub settings: BTreeMap<String, String>,
}

/// NAR bytes that came from neighbours instead of from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedReport {
    /// Since the begin of this day (UTC).
    pub today_bytes: u64,
    /// Ever, on this machine.
    pub total_bytes: u64,
    /// Bytes that another machine here had fetched from outside and relayed, packed as they are there; this day.
    pub relayed_today_bytes: u64,
    /// The same, ever.
    pub relayed_total_bytes: u64,
}

impl SavedReport {
    /// What did not have to come from outside: this day, and ever.
    #[must_use]
    pub const fn outside_avoided(&self) -> (u64, u64) {
        (
            self.today_bytes.saturating_add(self.relayed_today_bytes),
            self.total_bytes.saturating_add(self.relayed_total_bytes),
        )
    }
}

/// Something that was offered and not believed, or could not be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalReport {
    /// Seconds ago.
    pub ago_seconds: u64,
    /// Hash part of the store path it was about.
    pub path: String,
    /// What was wrong, in words.
    pub why: String,
}

/// Slivers and their bytes, as they travelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SliverCounts {
    /// Slivers.
    pub slivers: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A Walrus network, and what came from it since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalrusReport {
    /// The name or file that the settings give.
    pub network: String,
    /// What agents call it among themselves: 64 lower-case hexadecimal digits.
    pub id: String,
    /// Read on this machine, from what it keeps.
    pub from_here: SliverCounts,
    /// Read on this machine, from neighbours.
    pub from_peers: SliverCounts,
    /// Read on this machine, from storage nodes.
    pub from_nodes: SliverCounts,
    /// Fetched from storage nodes, for this machine and for others; the bytes include metadata.
    pub fetched: SliverCounts,
    /// Slivers and metadata kept on disk now.
    pub kept: SliverCounts,
    /// Neighbours that were found to have relayed something false.
    pub liars: u64,
}

/// One archive or upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceReport {
    /// URL or object id.
    pub name: String,
    /// What people call it, if that is something else.
    pub label: Option<String>,
    /// Whether it is asked at the moment.
    pub usable: bool,
    /// How it is, in a word or two.
    pub state: String,
    /// More about that.
    pub detail: Option<String>,
    /// Bytes fetched from it since the agent started, as they are there (packed).
    pub bytes: u64,
    /// Questions that it answered since then, with yes or no; `None` where that is not counted.
    pub requests: Option<u64>,
    /// Requests that failed.
    pub failed: u64,
    /// Median time to an answer, milliseconds.
    pub latency_ms: Option<f64>,
}

impl SourceReport {
    /// Its name for people: what they call it, with enough of the id to tell it from another of that name.
    #[must_use]
    pub fn shown(&self) -> String {
        const ID_CHARACTERS: usize = 10;
        let Some(label) = &self.label else { return self.name.clone() };
        let mut id: String = self.name.chars().take(ID_CHARACTERS).collect();
        if id.len() < self.name.len() {
            id.push('…');
        }
        format!("{label} ({id})")
    }
}

/// A network this machine is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkReport {
    /// Name of the interface.
    pub interface: String,
    /// This machine's addresses in it, with the lengths of their prefixes.
    pub addresses: Vec<String>,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
    /// Its hardware address, as a rule of `network.known` wants it.
    pub gateway_mac: Option<String>,
    /// The wireless network; only if a rule asks for one.
    pub ssid: Option<String>,
    /// The agent takes part in it.
    pub used: bool,
    /// The rule by which it is known.
    pub known_by: Option<String>,
}

/// The machine's own Nix store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreReport {
    /// Logical store directory, normally `/nix/store`.
    pub dir: String,
    /// Where its files really are, when that differs (a chroot store).
    pub real_dir: Option<String>,
    /// Valid paths in the store's database; `None` when it cannot be read.
    pub paths_total: Option<u64>,
    /// Those the sharing rule lets out to anybody.
    pub paths_shared: Option<u64>,
}

/// The cache on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheReport {
    /// Directory; `None` when the agent runs without a cache.
    pub dir: Option<String>,
    /// Bytes of NAR content held.
    pub used_bytes: u64,
    /// Bytes it may hold.
    pub quota_bytes: u64,
    /// NARs held completely.
    pub nars: u64,
    /// narinfos remembered.
    pub narinfos: u64,
    /// Why nothing is being stored at the moment (full disk, read-only), if so.
    pub paused: Option<String>,
}

/// Counts since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// The HTTP side; filled in by the gateway itself.
    pub http: HttpCounters,
    /// NARs given to Nix, by where their bytes came from.
    pub nars_by_source: SourceCounts,
    /// Bytes given to Nix, by where they came from.
    pub nar_bytes_by_source: SourceCounts,
    /// NAR bytes received from peers.
    pub bytes_from_peers: u64,
    /// NAR bytes given to peers.
    pub bytes_to_peers: u64,
    /// What came from outside the site, and was relayed.
    pub site: SiteCounters,
    /// What went wrong, by kind (`nar-failed`, `lie`, `tree-conflict`, `source-replaced`). Nothing
    /// wrong reached Nix.
    pub failures: BTreeMap<String, u64>,
}

/// What nobody on the network had, and one machine fetched for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteCounters {
    /// Times this machine went outside, for itself or for others.
    pub fetches: u64,
    /// Bytes that it fetched from outside, compressed as they were there.
    pub bytes_fetched: u64,
    /// Of them, why: `asked` by a peer, its own `turn`, or what became of the peer whose turn it was (`refused`, `busy`,
    /// `late`, `cut`, `failed`, `wrong`, `mutual`: it waited for this machine).
    pub bytes_fetched_because: BTreeMap<String, u64>,
    /// Of them, those of pieces that it had fetched before and no longer had.
    pub bytes_fetched_again: u64,
    /// Bytes of pieces from outside that are kept for this machine and others, in memory.
    pub kept_in_memory: u64,
    /// The same on disk: what this machine fetched and others have not had yet.
    pub kept_on_disk: u64,
    /// Bytes that other machines fetched and relayed to this one.
    pub bytes_relayed_in: u64,
    /// Bytes that this machine relayed to others.
    pub bytes_relayed_out: u64,
    /// NARs for Nix that came this way.
    pub nars: u64,
    /// narinfos for Nix that came this way.
    pub narinfos: u64,
}

/// A number per kind of source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceCounts {
    /// The machine's own store.
    pub store: u64,
    /// The cache on disk.
    pub cache: u64,
    /// Other agents.
    pub peers: u64,
    /// Archives on Walrus.
    pub archive: u64,
    /// HTTP, S3 and directory caches.
    pub upstream: u64,
}

/// What the gateway counts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpCounters {
    /// Connections open now.
    pub connections: u64,
    /// Connections ever accepted.
    pub connections_total: u64,
    /// narinfos asked for (GET and HEAD).
    pub narinfo_asked: u64,
    /// ... and answered.
    pub narinfo_hit: u64,
    /// ... and not there.
    pub narinfo_miss: u64,
    /// NARs asked for (GET), ranges included.
    pub nar_asked: u64,
    /// NAR bodies delivered to their last byte.
    pub nar_complete: u64,
    /// NAR bodies that had to be cut because no source could continue.
    pub nar_cut: u64,
    /// NAR bodies the client walked away from.
    pub nar_abandoned: u64,
    /// NAR questions answered 404.
    pub nar_miss: u64,
    /// Bytes of NAR handed to Nix.
    pub bytes_to_nix: u64,
    /// Handlers that panicked (each is a bug; Nix saw a 404 or a cut connection).
    pub panics: u64,
}

/// One NAR in motion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransferReport {
    /// Store path, full.
    pub path: String,
    /// `true` when it comes in, `false` when this agent gives it to a peer.
    pub incoming: bool,
    /// The peers taking part, short form.
    pub peers: Vec<String>,
    /// Bytes moved so far. To a peer: of the parts it asks for, since it began.
    pub done_bytes: u64,
    /// Bytes of the whole NAR.
    pub total_bytes: u64,
    /// Seconds since it began.
    pub seconds: f64,
}

/// Something the user should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// Stable word to script against, such as `no-store-database`.
    pub code: String,
    /// One sentence for people.
    pub text: String,
    /// What to do about it, if anything.
    pub hint: Option<String>,
}

/// `GET /api/v1/peers`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeersReport {
    /// All peers known, usable ones first.
    pub peers: Vec<PeerReport>,
}

/// One peer as this agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerReport {
    /// The peer's key, full text form.
    pub peer: String,
    /// Where it is reached.
    pub addr: Option<SocketAddr>,
    /// `connected`, `connecting`, `seen`, `silent`, `banned`.
    pub state: String,
    /// `member` of the same mesh or `stranger`.
    pub membership: String,
    /// How it was found: `mdns`, `static`, `incoming`.
    pub found_by: Option<String>,
    /// Smoothed round-trip time, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Smoothed throughput, bytes per second.
    pub throughput: Option<f64>,
    /// Store paths and pieces of Walrus blobs that it says it holds.
    pub holdings: Option<u64>,
    /// They are only a portion of what it holds: with many peers, most tell each other no more.
    pub holdings_in_part: bool,
    /// Bytes received from it.
    pub bytes_from: u64,
    /// Bytes sent to it.
    pub bytes_to: u64,
    /// Its faults so far, by kind: `wrong-content`, `forged-signature`, `protocol-violation`,
    /// `timeout`, `cut`, `overloaded`, `false-hint`.
    pub faults: BTreeMap<String, u64>,
    /// The latest fault, in words.
    pub last_fault: Option<String>,
    /// Seconds until it is used again, when banned.
    pub banned_seconds: Option<u64>,
    /// Seconds since it was last heard of.
    pub last_seen_seconds: Option<u64>,
}

impl PeerReport {
    /// How much it holds, for people: `1200`, `36+` when that is only a portion of it; `None` if it says nothing.
    #[must_use]
    pub fn holdings_text(&self) -> Option<String> {
        let more = if self.holdings_in_part { "+" } else { "" };
        self.holdings.map(|count| format!("{count}{more}"))
    }
}

/// `GET /api/v1/why/<store path, base name or hash part>`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WhyReport {
    /// Full store path where known, else the hash part that was asked about.
    pub path: String,
    /// What Nix would be told now.
    pub verdict: Verdict,
    /// One sentence: why.
    pub summary: String,
    /// `true` when the machine's own store holds it.
    pub in_own_store: bool,
    /// What the cache knows.
    pub cached: CachedReport,
    /// Every signature found and what was made of it.
    pub signatures: Vec<SignatureReport>,
    /// Content-addressed paths only: whether the address recomputes to the path.
    pub content_address_holds: Option<bool>,
    /// Whether the sharing rule lets this path out to strangers, and to members.
    pub shared_with: Vec<String>,
    /// Peers that may have it, in the order they would be asked.
    pub candidates: Vec<CandidateReport>,
    /// The steps of the decision, in order, in words.
    pub reasons: Vec<String>,
}

/// What Nix would be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// 200: a verified answer is at hand.
    Available,
    /// Somebody says they have it, nothing was verified yet.
    Likely,
    /// 404.
    #[default]
    Unavailable,
}

/// What the cache knows of one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedReport {
    /// A verified narinfo is cached.
    pub narinfo: bool,
    /// The whole NAR is cached.
    pub nar: bool,
    /// "Nobody has it" is cached for so many more seconds.
    pub miss_for_seconds: Option<u64>,
}

/// One signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SignatureReport {
    /// Name of the key that claims to have signed.
    pub key: String,
    /// A key of that name is among the trusted ones.
    pub trusted: bool,
    /// The signature was checked with it and holds.
    pub valid: bool,
}

/// One peer in its relation to one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CandidateReport {
    /// The peer's key, full text form.
    pub peer: String,
    /// Its holdings contain the path's prefix (a 32-bit prefix: a yes may be a coincidence).
    pub has_prefix: bool,
    /// Smoothed round-trip time, milliseconds.
    pub rtt_ms: Option<f64>,
    /// As in [`PeerReport::state`].
    pub state: String,
    /// Why it was not used or what it last refused.
    pub last_refusal: Option<String>,
}

/// Body of every control answer that is not 200.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiError {
    /// What is wrong with the request.
    pub error: String,
    /// What to do instead.
    pub hint: Option<String>,
}
