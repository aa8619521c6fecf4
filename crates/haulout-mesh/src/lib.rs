//! Agents on one network: finding each other, proving who they are, and handing over store paths.
//!
//! The pieces, from the wire upwards:
//!
//! * [`identity`], `tls`, `transport`: Ed25519 keys, QUIC with both ends authenticated by raw public keys, socket and
//!   window settings in one place;
//! * [`membership`]: proof that a peer knows the mesh secret, bound to the one TLS connection it is made on;
//! * [`frames`], [`info`], [`narframe`], [`siteframe`], [`txt`]: the wire formats as pure functions (see `docs/protocol.md`);
//! * `serve` and `ask`: the two ends of a request; `site`: of one for a site object; `locate`: of "who holds this";
//! * [`networks`]: interfaces and networks as they come and go, and which of them may be used;
//! * [`mdns`]: multicast DNS; `discovery`: peers and caches by it;
//! * [`Mesh`]: the handle everybody else uses, and [`Serve`]: what this machine gives.
//!
//! The endpoint lives on an OS thread of its own with a current-thread runtime (a quarter less CPU per byte than a shared
//! multi-thread one); everything that may block runs on a few blocking threads beside it.

mod api;
mod archive;
mod ask;
mod config;
mod discovery;
mod error;
pub mod frames;
pub mod identity;
pub mod info;
mod limit;
mod line;
mod locate;
pub mod mdns;
pub mod membership;
mod mesh;
pub mod narframe;
mod neighbours;
pub mod networks;
mod pace;
mod packing;
mod pressure;
mod registry;
mod serve;
mod session;
mod site;
pub mod siteframe;
mod tls;
mod transport;
mod tree;
pub mod txt;
mod view;

pub use api::{
    Asker, Audience, HoldingsFeed, Membership, NarKey, NarReader, Serve, SitePiece, SiteSource,
};
pub use archive::{PROOF_BYTES_MAX, ProofQuestion};
pub use ask::{NarStream, Patience};
pub use config::{InterfaceRules, Limits, MeshConfig, PORT_DEFAULT, StaticPeer, Strangers};
pub use error::{RequestError, StartError, StreamError};
pub use haulout_swarm::{Fault, PeerId};
pub use identity::Identity;
pub use line::Line;
pub use membership::{MeshSecret, SecretError};
pub use mesh::Mesh;
pub use neighbours::{CACHE_SERVICE_TYPE, NEIGHBOURS_MAX, Neighbour, OnNeighbour};
pub use site::SiteStream;
pub use siteframe::{SiteEnd, SiteFrame, SiteRequest};
pub use tree::{GROUP_SIZE, GROUPS_MAX, NarTree, NarTreeBuilder, TreeError, group_count};
pub use view::{MeshEvent, PeerState, PeerView};

// The tests that speak the protocol by hand need what is private here, and the same world as the others.
#[cfg(test)]
extern crate self as haulout_mesh;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod hostile;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
#[cfg(test)]
mod versions;
