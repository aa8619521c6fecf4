//! Settings: one TOML file, `HAULOUT_<SECTION>_<KEY>` variables and flags on
//! top of it, checked strictly and in one place.

mod archive;
mod layer;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

pub(crate) use archive::{Anchor, Archive, Name as ArchiveName};
pub(crate) use layer::load;
pub(crate) use values::{
    ByteSize, CachedNars, KnownNetworkText, NetworkText, PeerAddress, PushWhat, StrangerPolicy,
    UpstreamUrl,
};

/// Everything that can be set, with every default filled in.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// The Nix store of this machine.
    pub(crate) store: Store,
    /// What the agent keeps between runs.
    pub(crate) state: State,
    /// What the agent caches.
    pub(crate) cache: Cache,
    /// The substituter that the local Nix asks.
    pub(crate) http: Http,
    /// The network of peers.
    pub(crate) mesh: Mesh,
    /// In which networks the agent takes part.
    pub(crate) network: Network,
    /// Whose signatures are believed.
    pub(crate) trust: Trust,
    /// What is given to others.
    pub(crate) share: Share,
    /// The caches outside that are asked for what nobody on the network has.
    pub(crate) upstream: Upstream,
    /// The archives that are asked before those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) archive: Vec<Archive>,
    /// Writing what appears in the store to a cache.
    pub(crate) push: Push,
    /// The HTTP side for machines without an agent.
    pub(crate) gateway: Gateway,
    /// How this machine takes part in fetching once for everybody.
    pub(crate) site: Site,
    /// The Walrus network that blobs are read from.
    pub(crate) walrus: Walrus,
    /// What is logged.
    pub(crate) log: Log,
}

/// What is taken over while the agent runs: whole sections, and single settings.
const LIVE: [&str; 3] = ["trust.", "share.", "mesh.signing_key_file"];

/// What another reading of the settings brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Settings that changed and hold from now on.
    pub(crate) live: Vec<String>,
    /// Settings that changed and hold after a restart.
    pub(crate) restart: Vec<String>,
}

impl Settings {
    /// Names what differs in `new`, as `section.key`.
    pub(crate) fn differences(&self, new: &Self) -> Differences {
        let (old, new) = (self.flat(), new.flat());
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned();
        let (live, restart) =
            changed.partition(|name| LIVE.iter().any(|live| name.starts_with(live)));
        Differences { live, restart }
    }

    /// Every setting with its value, as text for people.
    pub(crate) fn in_words(&self) -> BTreeMap<String, String> {
        self.flat().into_iter().map(|(name, value)| (name, value.to_string())).collect()
    }

    /// Every setting with its value.
    fn flat(&self) -> BTreeMap<String, toml::Value> {
        // What is printed by `--check` can always be written as TOML.
        let sections = toml::Table::try_from(self).unwrap_or_default();
        let mut all = BTreeMap::new();
        for (section, values) in sections {
            match values {
                toml::Value::Table(values) => all.extend(
                    values.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)),
                ),
                // A list of tables, such as `[[archive]]`.
                list => drop(all.insert(section, list)),
            }
        }
        all
    }
}

/// `[store]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Store {
    /// Root of a chroot store; none: the machine's own `/nix`.
    pub(crate) root: Option<PathBuf>,
}

/// `[state]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct State {
    /// Directory of the identity key.
    pub(crate) dir: PathBuf,
}

/// `[cache]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cache {
    /// Directory of everything that may be deleted at any time.
    pub(crate) dir: PathBuf,
    /// Most bytes that cached contents may take.
    pub(crate) quota: ByteSize,
    /// Which NARs that came from elsewhere are kept in it: `never`; `auto`: what came from
    /// outside this network, and everything while there is no Nix store here; `all`.
    pub(crate) nars: CachedNars,
}

/// `[http]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Http {
    /// Where the local Nix asks.
    pub(crate) listen: SocketAddr,
    /// Let other machines ask here too: `listen` may then be any address.
    pub(crate) allow_remote: bool,
    /// `Priority:` of `nix-cache-info`; lower is asked first (cache.nixos.org: 40).
    pub(crate) priority: u32,
    /// Host names, besides loopback, under which the control pages may be asked.
    pub(crate) allowed_hosts: Vec<String>,
    /// Let other machines read `/metrics` (with `allow_remote`).
    pub(crate) remote_metrics: bool,
}

/// `[mesh]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mesh {
    /// Take part in the mesh at all.
    pub(crate) enable: bool,
    /// UDP port of the mesh on every address of the allowed interfaces.
    pub(crate) port: u16,
    /// Find peers, and be found, by mDNS.
    pub(crate) mdns: bool,
    /// Names or patterns (`eth*`) of the interfaces to use; empty: every physical one.
    pub(crate) interfaces: Vec<String>,
    /// Peers outside the reach of multicast: `HOST:PORT` or `PEERID@HOST:PORT`.
    pub(crate) peers: Vec<PeerAddress>,
    /// File with the mesh's shared secret; none: an open mesh.
    pub(crate) secret_file: Option<PathBuf>,
    /// In a mesh with a secret: what machines without it may have.
    pub(crate) strangers: StrangerPolicy,
    /// File with the mesh's signing key (`NAME:BASE64`), for paths built here.
    pub(crate) signing_key_file: Option<PathBuf>,
}

/// `[network]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Network {
    /// Networks in which the agent takes part: `gateway MAC`, `subnet ADDRESS/BITS` or `ssid NAME`; empty: all. Anywhere else
    /// it is silent and serves this machine's Nix alone.
    pub(crate) known: Vec<KnownNetworkText>,
}

/// `[trust]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trust {
    /// Keys (`NAME:BASE64`) whose signatures are believed.
    pub(crate) keys: Vec<String>,
    /// Also believe the `trusted-public-keys` of this machine's nix.conf.
    pub(crate) nix_conf: bool,
}

/// `[share]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Share {
    /// Give anything to others at all.
    pub(crate) enable: bool,
    /// Keys whose paths are given to anyone who asks; none: the trusted ones.
    pub(crate) keys: Option<Vec<String>>,
    /// Also give paths that were built here to members of the mesh, signed with
    /// the mesh's signing key.
    pub(crate) local_builds: bool,
}

/// `[upstream]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Upstream {
    /// Ask caches outside at all.
    pub(crate) enable: bool,
    /// Ask the `substituters` of this machine's nix.conf (those on this machine excepted).
    pub(crate) nix_conf: bool,
    /// Further caches: `https://…`, `http://…`, `s3://BUCKET?endpoint=…&region=…`, `file:///DIR`.
    pub(crate) urls: Vec<UpstreamUrl>,
    /// Also use the caches that others announce on the network (`_nix_binary_cache._tcp`).
    pub(crate) neighbours: bool,
    /// Passwords for caches, in netrc format; none: `netrc-file` of Nix, /etc/nix/netrc.
    pub(crate) netrc_file: Option<PathBuf>,
}

/// `[push]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Push {
    /// Where to: `file:///DIR` or `s3://BUCKET?endpoint=…&region=…`; none: nothing is pushed.
    pub(crate) to: Option<String>,
    /// Which paths: `local` (built here) or `signed` (all that carry a trusted signature).
    pub(crate) what: PushWhat,
    /// `zstd`, `xz` or `none`, with a level as in `zstd:9`; none: zstd.
    pub(crate) compression: Option<String>,
    /// Secret keys that sign what is pushed.
    pub(crate) sign_key_files: Vec<PathBuf>,
}

/// `[gateway]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Gateway {
    /// Where machines without an agent may ask, e.g. `0.0.0.0:5300`; none: nowhere.
    pub(crate) listen: Option<SocketAddr>,
    /// TLS certificate chain and key (PEM); none: plain HTTP, for a proxy in front.
    pub(crate) tls_cert: Option<PathBuf>,
    /// See `tls_cert`.
    pub(crate) tls_key: Option<PathBuf>,
    /// Networks that may ask, e.g. `10.0.0.0/8`; none: all.
    #[serde(serialize_with = "values::networks")]
    pub(crate) allow: Vec<haulout_gateway::Network>,
    /// File of lines NAME:PASSWORD: who may ask; none: everybody.
    pub(crate) readers_file: Option<PathBuf>,
    /// File of lines NAME:PASSWORD: who may upload with `nix copy --to`; none: nobody.
    pub(crate) writers_file: Option<PathBuf>,
    /// Where uploads are kept, as a binary cache; none: there are none.
    pub(crate) uploads_dir: Option<PathBuf>,
    /// Most bytes that uploads may take.
    pub(crate) uploads_quota: ByteSize,
}

/// `[site]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Site {
    /// Fetch for others what nobody on the network has, when it is this machine's turn. Without, what others fetched is
    /// still used.
    pub(crate) fetch_for_others: bool,
    /// Also when this machine runs on battery.
    pub(crate) on_battery: bool,
    /// Also when NetworkManager calls the connection metered.
    pub(crate) on_metered: bool,
    /// Give what is here to peers also when this machine runs on battery.
    pub(crate) serve_on_battery: bool,
    /// Also when NetworkManager calls the connection metered.
    pub(crate) serve_on_metered: bool,
    /// Most bytes per second from outside; none: no limit.
    pub(crate) download: Option<ByteSize>,
    /// Most bytes per second from peers; none: no limit.
    pub(crate) from_peers: Option<ByteSize>,
    /// Most bytes per second fetched before Nix asks; none: no limit.
    pub(crate) ahead_rate: Option<ByteSize>,
    /// Most bytes per second to all peers together; none: no limit. Peers share it alike.
    pub(crate) upload: Option<ByteSize>,
    /// Most bytes per second to one peer; none: no limit.
    pub(crate) upload_per_peer: Option<ByteSize>,
    /// Most bytes that are fetched from outside before Nix asks for them; `0`: none.
    pub(crate) ahead: ByteSize,
    /// Most bytes in memory of pieces from outside, for this machine and its neighbours; not less than 16 MiB.
    pub(crate) memory: ByteSize,
    /// Most bytes on disk, below `cache.dir`, of what this machine fetched for the site, neighbours still want and does not
    /// fit into memory; `0`: none.
    pub(crate) spill: ByteSize,
}

/// `[walrus]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Walrus {
    /// `mainnet`, `testnet`, or a file as `haulout walrus --network` takes it; none: no blobs are read here.
    pub(crate) network: Option<String>,
    /// Most bytes of slivers kept on disk, below `cache.dir`; `0`: none are.
    pub(crate) quota: ByteSize,
}

/// `[log]`
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Log {
    /// A level (`info`) or a filter as of the `tracing` crates.
    pub(crate) level: String,
}
