//! Agents of different versions on one network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;

use crate::frames::MINOR_VERSION;
use crate::hostile::raw_endpoint;
use crate::support::*;
use crate::tls::{self, ALPN, SERVER_NAME};
use crate::{MeshConfig, PeerState, ProofQuestion, RequestError};

fn speaking(seed: u8, minor: u16) -> MeshConfig {
    let mut config = config(seed);
    config.minor = minor;
    config
}

/// Whoever of the two is the elder: everything that it knows works, and nothing else is asked of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minor_versions_work_together_with_what_both_know() {
    let item = Item::new(1, 300_000, true);
    for (one, other) in [
        (0, MINOR_VERSION),
        (MINOR_VERSION, 0),
        (1, MINOR_VERSION),
        (MINOR_VERSION, MINOR_VERSION + 7),
    ] {
        let holder = start(speaking(1, one), &World::new([item.clone()])).await;
        let asker = start(with_peer(speaking(2, other), &holder), &World::new([])).await;
        eventually("holdings arrive", || asker.who_has(&item.hash()) == [holder.id()]).await;
        let infos = asker.path_infos(&holder.id(), &item.hash(), 10, SOON).await.unwrap();
        assert_eq!(infos[0], item.info, "{one} and {other}");
        let mut stream =
            asker.nar_range(&holder.id(), &item.key(), 0..300_000, SOON).await.unwrap();
        let mut nar = Vec::new();
        while let Some(piece) = stream.next().await.unwrap() {
            nar.extend_from_slice(&piece);
        }
        assert_eq!(nar, *item.nar);
        let question = ProofQuestion { archive: [7; 32], known: 0, epoch: None };
        let answer = asker.archive_proof(&holder.id(), question, SOON).await;
        let both = one.min(other);
        if both < crate::frames::MINOR_ARCHIVE {
            assert_eq!(answer, Err(RequestError::Unsupported), "{one} and {other}");
        } else {
            assert_ne!(answer, Err(RequestError::Unsupported), "{one} and {other}");
        }
        for mesh in [&holder, &asker] {
            let faults: u64 = mesh.peers().iter().map(|peer| peer.faults).sum();
            assert_eq!(faults, 0, "a version is no fault: {one} and {other}");
        }
    }
}

/// The next major version is another protocol: no connection, nothing said about it to users, no harm.
#[tokio::test]
async fn another_major_version_is_refused_in_the_handshake() {
    let mesh = start(config(1), &World::new([])).await;
    let stranger = identity(2);
    let endpoint = raw_endpoint(&stranger);
    for (alpn, welcome) in [(&b"haulout/2"[..], false), (&b"haulout/0"[..], false), (ALPN, true)] {
        let mut crypto = tls::client(&stranger, None).unwrap();
        crypto.alpn_protocols = vec![alpn.to_vec()];
        let crypto = QuicClientConfig::try_from(crypto).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let dialled = endpoint.connect_with(config, mesh.local_addrs()[0], SERVER_NAME).unwrap();
        let dialled = tokio::time::timeout(Duration::from_secs(10), dialled).await.unwrap();
        assert_eq!(dialled.is_ok(), welcome, "{}", String::from_utf8_lossy(alpn));
    }
    assert!(mesh.peers().iter().all(|peer| peer.state != PeerState::Connected));
    // One that speaks both is spoken to in ours.
    let mut crypto = tls::client(&stranger, None).unwrap();
    crypto.alpn_protocols = vec![b"haulout/2".to_vec(), ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(crypto).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let conn =
        endpoint.connect_with(config, mesh.local_addrs()[0], SERVER_NAME).unwrap().await.unwrap();
    let data = conn.handshake_data().unwrap();
    let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
    assert_eq!(data.protocol.as_deref(), Some(ALPN));
}
