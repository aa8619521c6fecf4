//! Settings: one TOML file, `HAULOUT_<SECTION>_<KEY>` variables and flags on
//! top of it, checked strictly and in one place.

mod layer;
mod values;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

pub use layer::{Origin, load};
pub use values::{ByteSize, PeerAddress, StrangerPolicy};

/// Everything that can be set, with every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The Nix store of this machine.
    pub store: Store,
    /// What the agent keeps between runs.
    pub state: State,
    /// What the agent caches.
    pub cache: Cache,
    /// The substituter that the local Nix asks.
    pub http: Http,
    /// The network of peers.
    pub mesh: Mesh,
    /// Whose signatures are believed.
    pub trust: Trust,
    /// What is given to others.
    pub share: Share,
    /// What is logged.
    pub log: Log,
}

/// `[store]`
#[derive(Debug, Clone, Serialize)]
pub struct Store {
    /// Root of a chroot store; none: the machine's own `/nix`.
    pub root: Option<PathBuf>,
}

/// `[state]`
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// Directory of the identity key.
    pub dir: PathBuf,
}

/// `[cache]`
#[derive(Debug, Clone, Serialize)]
pub struct Cache {
    /// Directory of everything that may be deleted at any time.
    pub dir: PathBuf,
    /// Most bytes that cached contents may take.
    pub quota: ByteSize,
    /// Keep NARs that were fetched for Nix, so that peers can have them even
    /// after the path was collected as garbage.
    pub keep_nars: bool,
}

/// `[http]`
#[derive(Debug, Clone, Serialize)]
pub struct Http {
    /// Where the local Nix asks.
    pub listen: SocketAddr,
    /// `Priority:` of `nix-cache-info`; lower is asked first (cache.nixos.org: 40).
    pub priority: u32,
    /// Host names, besides loopback, under which the control pages may be asked.
    pub allowed_hosts: Vec<String>,
}

/// `[mesh]`
#[derive(Debug, Clone, Serialize)]
pub struct Mesh {
    /// Take part in the mesh at all.
    pub enable: bool,
    /// UDP port of the mesh on every address of the allowed interfaces.
    pub port: u16,
    /// Find peers, and be found, by mDNS.
    pub mdns: bool,
    /// Names or patterns (`eth*`) of the interfaces to use; empty: every physical one.
    pub interfaces: Vec<String>,
    /// Peers outside the reach of multicast: `HOST:PORT` or `PEERID@HOST:PORT`.
    pub peers: Vec<PeerAddress>,
    /// File with the mesh's shared secret; none: an open mesh.
    pub secret_file: Option<PathBuf>,
    /// In a mesh with a secret: what machines without it may have.
    pub strangers: StrangerPolicy,
    /// File with the mesh's signing key (`NAME:BASE64`), for paths built here.
    pub signing_key_file: Option<PathBuf>,
}

/// `[trust]`
#[derive(Debug, Clone, Serialize)]
pub struct Trust {
    /// Keys (`NAME:BASE64`) whose signatures are believed.
    pub keys: Vec<String>,
    /// Also believe the `trusted-public-keys` of this machine's nix.conf.
    pub nix_conf: bool,
}

/// `[share]`
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// Give anything to others at all.
    pub enable: bool,
    /// Keys whose paths are given to anyone who asks; none: the trusted ones.
    pub keys: Option<Vec<String>>,
    /// Also give paths that were built here to members of the mesh, signed with
    /// the mesh's signing key.
    pub local_builds: bool,
}

/// `[log]`
#[derive(Debug, Clone, Serialize)]
pub struct Log {
    /// A level (`info`) or a filter as of the `tracing` crates.
    pub level: String,
}
