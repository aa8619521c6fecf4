//! The agent's place in the mesh, by its settings.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use haulout_gateway::api::Warning;
use haulout_mesh::{Identity, Mesh, MeshConfig, MeshSecret, StaticPeer, Strangers};
use haulout_resolver::Serving;

use super::keys::read_small_file;
use super::networks;
use crate::config::{Settings, StrangerPolicy};
use crate::error::{Context, Failure, Outcome};

pub(super) async fn join(
    settings: &Settings,
    config: MeshConfig,
    serving: &Serving,
) -> Outcome<Mesh> {
    let joining = || format!("cannot join the mesh on UDP port {}", settings.mesh.port);
    Mesh::start(config, serving.serve()).await.map_err(|error| {
        Failure::new(joining())
            .because(error)
            .hint("choose another port with --set mesh.port=N, or 0 for any free one")
    })
}

pub(super) async fn config(
    settings: &Settings,
    identity: Identity,
    warnings: &mut Vec<Warning>,
) -> Outcome<MeshConfig> {
    let mesh = &settings.mesh;
    let secret = match &mesh.secret_file {
        None => None,
        Some(path) => {
            let text = read_small_file(path, "mesh.secret_file")?;
            let secret = MeshSecret::derive(text.trim().as_bytes())
                .context(|| format!("{} does not hold a usable secret", path.display()))?;
            Some(secret)
        }
    };
    Ok(MeshConfig {
        listen: vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), mesh.port)],
        mdns: mesh.mdns,
        interfaces: networks::interfaces(settings),
        static_peers: static_peers(settings, warnings).await,
        secret,
        strangers: match mesh.strangers {
            StrangerPolicy::Nothing => Strangers::Ignore,
            StrangerPolicy::Public => Strangers::Public,
        },
        upload: settings.site.upload.map(|rate| rate.0),
        upload_per_peer: settings.site.upload_per_peer.map(|rate| rate.0),
        ..MeshConfig::new(identity)
    })
}

/// Names are looked up once, at the start; one that has no address is no
/// reason not to start.
async fn static_peers(settings: &Settings, warnings: &mut Vec<Warning>) -> Vec<StaticPeer> {
    let mut peers = Vec::new();
    for peer in &settings.mesh.peers {
        let found = tokio::net::lookup_host(&peer.host).await;
        match found.map(|mut addresses| addresses.next()) {
            Ok(Some(addr)) => peers.push(StaticPeer { addr, key: peer.id }),
            Ok(None) | Err(_) => warnings.push(Warning {
                code: "peer-without-address".to_owned(),
                text: format!("the peer {peer} has no address and is left out"),
                hint: Some("check `peers` in [mesh]; names are looked up at the start".to_owned()),
            }),
        }
    }
    peers
}
