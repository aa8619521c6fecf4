//! Peers that break the rules, played by hand on raw QUIC connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use tokio::io::AsyncReadExt;

use crate::frames::{
    HELLO_BODY_MAX, Hello, MINOR_ARCHIVE, MINOR_VERSION, Request, Status, encode_path_infos,
};
use crate::membership::{EXPORTER_LABEL, EXPORTER_LEN, MeshSecret, Role};
use crate::registry::code;
use crate::support::*;
use crate::tls::SERVER_NAME;
use crate::{
    Identity, Membership, Mesh, PROOF_BYTES_MAX, PeerState, ProofQuestion, RequestError,
    StaticPeer, Strangers, StreamError, transport,
};

fn secret(text: &str) -> MeshSecret {
    MeshSecret::derive(text.as_bytes()).unwrap()
}

/// A QUIC endpoint in the hands of the test.
pub(crate) fn raw_endpoint(identity: &Identity) -> Endpoint {
    let bound = transport::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let server = transport::server_config(identity, 8).unwrap();
    Endpoint::new(
        transport::endpoint_config(identity),
        Some(server),
        bound.socket,
        Arc::new(TokioRuntime),
    )
    .unwrap()
}

pub(crate) async fn raw_dial(
    endpoint: &Endpoint,
    identity: &Identity,
    addr: SocketAddr,
) -> Connection {
    let config = transport::client_config(identity, None, 0).unwrap();
    endpoint.connect_with(config, addr, SERVER_NAME).unwrap().await.unwrap()
}

pub(crate) async fn read_raw_hello(recv: &mut RecvStream) -> Vec<u8> {
    let len = usize::from(recv.read_u16().await.unwrap());
    assert!(len <= HELLO_BODY_MAX);
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.unwrap();
    body
}

/// Dials and says hello as a stranger.
pub(crate) async fn raw_stranger(identity: &Identity, mesh: &Mesh) -> (Endpoint, Connection) {
    let endpoint = raw_endpoint(identity);
    let conn = raw_dial(&endpoint, identity, mesh.local_addrs()[0]).await;
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    send.write_all(&Hello { minor: MINOR_VERSION, proof: None }.encode()).await.unwrap();
    send.finish().unwrap();
    // A mesh that closes on us may do so before its hello arrives.
    let _ = recv.read_to_end(HELLO_BODY_MAX).await;
    (endpoint, conn)
}

async fn ask_raw(conn: &Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    // The answer may come before everything is sent.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    recv.read_to_end(1 << 20).await.unwrap_or_default()
}

#[tokio::test]
async fn a_peer_with_another_key_than_expected_is_not_taken() {
    let a = start(config(1), &World::new([])).await;
    let mut wrong = config(2);
    wrong.static_peers.push(StaticPeer { addr: a.local_addrs()[0], key: Some(identity(99).id()) });
    let b = start(wrong, &World::new([])).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(b.peers().iter().all(|peer| peer.state != PeerState::Connected), "{:?}", b.peers());
    assert!(a.peers().is_empty());
}

#[tokio::test]
async fn members_know_each_other_and_strangers_get_what_the_policy_says() {
    let private = Item::new(1, 1_000, false);
    let public = Item::new(2, 1_000, true);
    let world = World::new([private.clone(), public.clone()]);
    let mut seed_config = config(1);
    seed_config.secret = Some(secret("correct horse battery staple"));
    seed_config.strangers = Strangers::Public;
    let seed = start(seed_config, &world).await;

    let mut member = with_peer(config(2), &seed);
    member.secret = Some(secret("correct horse battery staple"));
    let member = start(member, &World::new([])).await;
    eventually("the member knows all", || member.who_has(&private.hash()) == [seed.id()]).await;
    assert_eq!(member.peers()[0].membership, Membership::Member);
    assert_eq!(
        member.path_infos(&seed.id(), &private.hash(), 1, SOON).await.unwrap()[0],
        private.info
    );

    let mut guesser = with_peer(config(3), &seed);
    guesser.secret = Some(secret("correct horse battery stapler"));
    guesser.strangers = Strangers::Public;
    let guesser = start(guesser, &World::new([])).await;
    let nobody = start(with_peer(config(4), &seed), &World::new([])).await;
    for stranger in [&guesser, &nobody] {
        eventually("the stranger knows what is public", || {
            stranger.who_has(&public.hash()) == [seed.id()]
        })
        .await;
        assert!(stranger.who_has(&private.hash()).is_empty());
        assert_eq!(stranger.peers()[0].membership, Membership::Stranger);
        assert_eq!(
            stranger.path_infos(&seed.id(), &private.hash(), 1, SOON).await,
            Err(RequestError::No)
        );
        assert!(stranger.path_infos(&seed.id(), &public.hash(), 1, SOON).await.is_ok());
    }
}

#[tokio::test]
async fn a_closed_mesh_closes_on_strangers_without_asking_serve() {
    let public = Item::new(2, 1_000, true);
    let world = World::new([public.clone()]);
    let mut closed = config(1);
    closed.secret = Some(secret("correct horse battery staple"));
    let closed = start(closed, &world).await;
    let thief = identity(7);
    let (_endpoint, conn) = raw_stranger(&thief, &closed).await;
    let reason = conn.closed().await;
    assert_eq!(crate::registry::closed_with(&reason), Some(code::STRANGER));
    assert!(world.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_relay_in_the_middle_does_not_become_a_member() {
    let text = "correct horse battery staple";
    let mut b_config = config(1);
    b_config.secret = Some(secret(text));
    b_config.strangers = Strangers::Public;
    let b = start(b_config, &World::new([])).await;
    let relay = identity(66);
    let endpoint = raw_endpoint(&relay);
    let mut a_config = config(2);
    a_config.secret = Some(secret(text));
    // The address leads to the relay and no key is pinned: the best case for it.
    a_config.static_peers.push(StaticPeer { addr: endpoint.local_addr().unwrap(), key: None });
    let a = start(a_config, &World::new([])).await;

    let from_a = endpoint.accept().await.unwrap().await.unwrap();
    let (mut to_a, mut a_hello) = from_a.accept_bi().await.unwrap();
    let said_by_a = read_raw_hello(&mut a_hello).await;
    assert!(Hello::decode(&said_by_a).unwrap().proof.is_some());
    let to_b = raw_dial(&endpoint, &relay, b.local_addrs()[0]).await;
    let (mut send, mut recv) = to_b.open_bi().await.unwrap();
    send.write_all(&u16::try_from(said_by_a.len()).unwrap().to_be_bytes()).await.unwrap();
    send.write_all(&said_by_a).await.unwrap();
    let said_by_b = read_raw_hello(&mut recv).await;
    assert_eq!(
        Hello::decode(&said_by_b).unwrap().proof,
        None,
        "b shows nothing to who has shown nothing"
    );
    eventually("b takes the relay for a stranger", || {
        b.peers()
            .iter()
            .any(|peer| peer.id == relay.id() && peer.membership == Membership::Stranger)
    })
    .await;

    // Reflecting a's own proof does not help either.
    to_a.write_all(&u16::try_from(said_by_a.len()).unwrap().to_be_bytes()).await.unwrap();
    to_a.write_all(&said_by_a).await.unwrap();
    let reason = from_a.closed().await;
    assert_eq!(crate::registry::closed_with(&reason), Some(code::STRANGER));
    assert!(a.peers().iter().all(|peer| peer.state != PeerState::Connected));

    // And who knows the secret gets in by hand, so the test would notice a proof that always fails.
    let to_b = raw_dial(&endpoint, &relay, b.local_addrs()[0]).await;
    let mut exporter = [0; EXPORTER_LEN];
    to_b.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").unwrap();
    let proof = Some(secret(text).prove(Role::Dialler, &exporter, &relay.id(), &b.id()));
    let (mut send, mut recv) = to_b.open_bi().await.unwrap();
    send.write_all(&Hello { minor: 9, proof }.encode()).await.unwrap();
    assert!(Hello::decode(&read_raw_hello(&mut recv).await).unwrap().proof.is_some());
}

#[tokio::test]
async fn malformed_requests_get_an_answer_and_hurt_nobody() {
    let item = Item::new(1, 1_000, true);
    let mesh = start(config(1), &World::new([item.clone()])).await;
    let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
    let unsupported = Status::Unsupported.to_byte();
    let bad = Status::BadRequest.to_byte();
    assert_eq!(ask_raw(&conn, &[200, 0, 3, 1, 2, 3]).await, [unsupported]);
    assert_eq!(ask_raw(&conn, &[1, 0xff, 0xff]).await, [bad], "too long");
    assert_eq!(ask_raw(&conn, &[1, 0, 3, 1, 2, 3]).await, [bad], "too short a body");
    assert_eq!(ask_raw(&conn, &[1, 0, 30, 1, 2, 3]).await, [bad], "truncated");
    assert_eq!(ask_raw(&conn, &[]).await, [bad]);
    let beyond = Request::NarRange { key: item.key(), start: 999, len: 2 }.encode();
    assert_eq!(ask_raw(&conn, &beyond).await, [bad]);
    let endless =
        [Request::PathInfos { hash: item.hash(), max: 1 }.encode(), vec![0xaa; 1 << 20]].concat();
    assert_eq!(
        ask_raw(&conn, &endless).await[0],
        Status::Ok.to_byte(),
        "what follows a request is not read"
    );
    // A later version's longer request is understood as far as we know it.
    let mut longer = Request::PathInfos { hash: item.hash(), max: 1 }.encode();
    longer[2] += 4;
    longer.extend([9; 4]);
    assert_eq!(ask_raw(&conn, &longer).await[0], Status::Ok.to_byte());
}

#[tokio::test]
async fn malformed_holdings_cost_the_connection() {
    for body in [&[0, 0, 0, 3, 9, 9, 9][..], &[0xff, 0xff, 0xff, 0xff]] {
        let mesh = start(config(1), &World::new([])).await;
        let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
        let mut uni = conn.open_uni().await.unwrap();
        uni.write_all(&[crate::frames::UNI_HOLDINGS]).await.unwrap();
        uni.write_all(body).await.unwrap();
        let reason = conn.closed().await;
        assert_eq!(crate::registry::closed_with(&reason), Some(code::BANNED));
        eventually("visible", || {
            mesh.peers()[0].state == PeerState::Banned && mesh.peers()[0].faults == 1
        })
        .await;
        // And it does not come back meanwhile.
        let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
        assert_eq!(crate::registry::closed_with(&conn.closed().await), Some(code::BANNED));
    }
}

#[tokio::test]
async fn a_flood_of_requests_is_slowed_and_then_cut() {
    let item = Item::new(1, 1_000, true);
    let mut limited = config(1);
    limited.limits.requests_per_second = 1;
    limited.limits.request_burst = 20;
    let mesh = start(limited, &World::new([item.clone()])).await;
    let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
    let request = Request::PathInfos { hash: item.hash(), max: 1 }.encode();
    let (mut served, mut busy) = (0, 0);
    for _ in 0..200 {
        let Ok((mut send, mut recv)) = conn.open_bi().await else { break };
        let _ = send.write_all(&request).await;
        let _ = send.finish();
        match recv.read_to_end(1 << 20).await.unwrap_or_default().first() {
            Some(0) => served += 1,
            Some(2) => busy += 1,
            _ => break,
        }
    }
    assert!((20..=25).contains(&served) && (15..=25).contains(&busy), "{served} {busy}");
    assert_eq!(crate::registry::closed_with(&conn.closed().await), Some(code::BANNED));
}

/// A server of the first minor version that answers every request with what `script` writes.
async fn hostile_server(
    identity: &Identity,
    script: impl Fn(u8, SendStream) -> tokio::task::JoinHandle<()> + Send + 'static,
) -> SocketAddr {
    hostile_server_of(0, identity, script).await
}

pub(crate) async fn hostile_server_of(
    minor: u16,
    identity: &Identity,
    script: impl Fn(u8, SendStream) -> tokio::task::JoinHandle<()> + Send + 'static,
) -> SocketAddr {
    let endpoint = raw_endpoint(identity);
    let addr = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let conn = incoming.await.unwrap();
            let (mut send, mut recv) = conn.accept_bi().await.unwrap();
            read_raw_hello(&mut recv).await;
            send.write_all(&Hello { minor, proof: None }.encode()).await.unwrap();
            send.finish().unwrap();
            while let Ok((send, mut recv)) = conn.accept_bi().await {
                let mut header = [0; 3];
                if recv.read_exact(&mut header).await.is_ok() {
                    script(header[0], send);
                }
            }
        }
    });
    addr
}

pub(crate) async fn client_of(addr: SocketAddr, server: &Identity) -> Mesh {
    let mut config = config(2);
    config.static_peers.push(StaticPeer { addr, key: Some(server.id()) });
    let mesh = start(config, &World::new([])).await;
    eventually("connected", || mesh.peers().iter().any(|peer| peer.state == PeerState::Connected))
        .await;
    mesh
}

#[tokio::test]
async fn lying_answers_are_recognised() {
    let item = Item::new(1, 700_000, true);
    let other = Item::new(2, 700_000, true);
    let answers: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("bad status", vec![77]),
        ("too long", [&[0][..], &u32::MAX.to_be_bytes()].concat()),
        ("truncated", vec![0, 0, 0, 0, 9, 1, 2]),
        ("garbage", [&[0, 0, 0, 0, 40][..], &[0x55; 40]].concat()),
        ("another path", {
            let body = encode_path_infos(std::slice::from_ref(&other.info)).unwrap();
            [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
        }),
    ];
    for (what, answer) in answers {
        let liar = identity(9);
        let addr = hostile_server(&liar, move |_, mut send| {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = send.write_all(&answer).await;
                let _ = send.finish();
            })
        })
        .await;
        let mesh = client_of(addr, &liar).await;
        for result in [
            mesh.path_infos(&liar.id(), &item.hash(), 4, SOON).await.map(drop),
            mesh.nar_tree(&liar.id(), &item.key(), SOON).await.map(drop),
        ] {
            assert!(
                matches!(result, Err(RequestError::Protocol(_) | RequestError::Lost(_))),
                "{what}: {result:?}"
            );
        }
    }
}

#[tokio::test]
async fn lying_and_stalling_streams_are_cut() {
    let item = Item::new(1, 700_000, true);
    let header = |encoding: u8, len: u32| [&[encoding][..], &len.to_be_bytes()].concat();
    let first = [header(0, 262_144), item.nar[..262_144].to_vec()].concat();
    let bomb = zstd::bulk::compress(&vec![0; 4 << 20], 1).unwrap();
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("ends early", first.clone(), true),
        ("stalls", first.clone(), false),
        ("stalls in a frame", [first.clone(), header(0, 262_144), vec![1; 1000]].concat(), false),
        ("wrong length", [first.clone(), header(0, 1000)].concat(), false),
        ("unknown encoding", [first.clone(), header(7, 1000)].concat(), false),
        (
            "bomb",
            [first.clone(), header(1, u32::try_from(bomb.len()).unwrap()), bomb].concat(),
            false,
        ),
        ("huge", [first, header(1, u32::MAX)].concat(), false),
    ];
    for (what, body, finish) in cases {
        let liar = identity(9);
        let addr = hostile_server(&liar, move |_, mut send| {
            let body = body.clone();
            tokio::spawn(async move {
                let _ = send.write_all(&[0]).await;
                let _ = send.write_all(&body).await;
                if finish {
                    let _ = send.finish();
                } else {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            })
        })
        .await;
        let mesh = client_of(addr, &liar).await;
        let mut stream = mesh.nar_range(&liar.id(), &item.key(), 0..700_000, SOON).await.unwrap();
        let started = Instant::now();
        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            item.nar[..262_144],
            "{what}: what came before is good"
        );
        let error = stream.next().await.unwrap_err();
        match what {
            "ends early" => assert!(matches!(error, StreamError::Lost(_)), "{error}"),
            "stalls" | "stalls in a frame" => {
                assert!(matches!(error, StreamError::Stalled(_)), "{error}");
                assert!(started.elapsed() < Duration::from_secs(3));
            }
            _ => assert!(matches!(error, StreamError::Protocol(_)), "{what}: {error}"),
        }
        assert_eq!(stream.remaining(), 700_000 - 262_144);
    }
}

#[tokio::test]
async fn slow_openers_are_let_go() {
    let mesh = start(config(1), &World::new([])).await;
    let me = identity(5);
    let endpoint = raw_endpoint(&me);
    let conn = raw_dial(&endpoint, &me, mesh.local_addrs()[0]).await;
    let started = Instant::now();
    // Says nothing.
    let reason = conn.closed().await;
    assert_eq!(crate::registry::closed_with(&reason), Some(code::TIMEOUT));
    assert!(started.elapsed() < Duration::from_secs(4));
    assert!(mesh.peers().is_empty());
}

#[tokio::test]
async fn standings_that_are_none_get_a_peer_banned() {
    let mesh = start(config(1), &World::new([])).await;
    for (n, bytes) in
        [(31, &[2, 0, 5, 0, 0, 0, 1, 1][..]), (32, &[2, 1, 1]), (33, &[2, 0, 6, 0, 0, 0, 1, 1, 33])]
    {
        let villain = identity(n);
        let (_endpoint, conn) = raw_stranger(&villain, &mesh).await;
        let mut send = conn.open_uni().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let _ = send.finish();
        eventually("banned", || {
            mesh.peers()
                .iter()
                .any(|peer| peer.id == villain.id() && peer.state == PeerState::Banned)
        })
        .await;
    }
}

#[tokio::test]
async fn malformed_requests_for_site_objects_get_bad_request() {
    let mesh = start(config(1), &World::new([])).await;
    let (_endpoint, conn) = raw_stranger(&identity(34), &mesh).await;
    let mut beyond = vec![4, 0, 82, 2];
    beyond.extend([9; 32]);
    beyond.extend([0, 0, 0, 7]);
    beyond.extend(1000_u64.to_be_bytes());
    beyond.extend([0; 37]);
    assert_eq!(ask_raw(&conn, &beyond).await, [Status::BadRequest.to_byte()]);
    assert_eq!(ask_raw(&conn, &[4, 0, 2, 2, 9]).await, [Status::BadRequest.to_byte()]);
    let mut later_kind = beyond.clone();
    later_kind[3] = 200;
    assert_eq!(ask_raw(&conn, &later_kind).await, [Status::Unsupported.to_byte()]);
}

#[tokio::test]
async fn lies_about_the_length_of_a_proof_are_recognised() {
    let question = ProofQuestion { archive: [7; 32], known: 0, epoch: None };
    let too_long = u32::try_from(PROOF_BYTES_MAX + 1).unwrap().to_be_bytes();
    for (what, answer) in [
        ("longer than allowed", [&[0][..], &too_long, &[0; 9]].concat()),
        ("cut short", [&[0, 0, 0, 0, 9][..], &[1; 8]].concat()),
        ("no status", vec![77]),
    ] {
        let liar = identity(9);
        let addr = hostile_server_of(MINOR_VERSION, &liar, move |_, mut send| {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = send.write_all(&answer).await;
                let _ = send.finish();
            })
        })
        .await;
        let mesh = client_of(addr, &liar).await;
        let error = mesh.archive_proof(&liar.id(), question, SOON).await.unwrap_err();
        match what {
            "cut short" => assert!(matches!(error, RequestError::Lost(_)), "{error}"),
            _ => assert!(matches!(error, RequestError::Protocol(_)), "{what}: {error}"),
        }
    }
    // A peer of an earlier version is not asked at all.
    let elder = identity(9);
    let never =
        |_: u8, _: SendStream| -> tokio::task::JoinHandle<()> { panic!("it must not be asked") };
    let addr = hostile_server_of(MINOR_ARCHIVE - 1, &elder, never).await;
    let mesh = client_of(addr, &elder).await;
    let refused = mesh.archive_proof(&elder.id(), question, SOON).await;
    assert_eq!(refused, Err(RequestError::Unsupported));
}

#[tokio::test]
async fn malformed_questions_for_proofs_get_bad_request() {
    let mesh = start(config(1), &World::new([])).await;
    let (_endpoint, conn) = raw_stranger(&identity(34), &mesh).await;
    assert_eq!(ask_raw(&conn, &[5, 0, 2, 1, 1]).await, [Status::BadRequest.to_byte()]);
    let question = ProofQuestion { archive: [7; 32], known: 0, epoch: None };
    let well = Request::ArchiveProof(question).encode();
    assert_eq!(ask_raw(&conn, &well).await, [Status::No.to_byte()]);
}

/// A home of everything, in the hands of the test: tells a portion with nothing in it, and answers who holds something with
/// `says`, or not at all.
async fn hostile_home(mesh: &Mesh, seed: u8, says: Option<Vec<u8>>) -> (Endpoint, Connection) {
    let (endpoint, conn) = raw_stranger(&identity(seed), mesh).await;
    let mut uni = conn.open_uni().await.unwrap();
    let empty = haulout_swarm::holdings::Snapshot::new(1, vec![]).unwrap().encode();
    let len = u32::try_from(empty.len()).unwrap().to_be_bytes();
    uni.write_all(&[&[crate::frames::UNI_PORTION, 0, 1][..], &len, &empty].concat()).await.unwrap();
    let answering = conn.clone();
    tokio::spawn(async move {
        let _uni = uni;
        while let Ok((mut send, mut recv)) = answering.accept_bi().await {
            let _ = recv.read_to_end(1 << 10).await;
            match &says {
                Some(says) => {
                    let _ = send.write_all(says).await;
                    let _ = send.finish();
                }
                None => std::future::pending().await,
            }
        }
    });
    eventually("its portion is here", || mesh.knows_in_part()).await;
    (endpoint, conn)
}

/// A mesh that tells nobody everything, so that two are a crowd.
async fn crowd_of_one() -> Mesh {
    let mut crowded = config(1);
    crowded.limits.full_peers = 0;
    start(crowded, &World::new([])).await
}

fn names(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[Status::Ok.to_byte()][..], &len, body].concat()
}

#[tokio::test]
async fn a_home_that_lies_costs_a_question_and_one_that_babbles_is_banned() {
    let item = Item::new(1, 1_000, true);
    // Names itself, somebody unknown, and us.
    let mesh = crowd_of_one().await;
    let mut named = vec![identity(5).id(), identity(99).id(), mesh.id()];
    named.sort_unstable();
    let lie = names(&crate::frames::encode_named(&named).unwrap());
    let (_endpoint, _conn) = hostile_home(&mesh, 5, Some(lie)).await;
    mesh.locate(&item.hash()).await;
    assert_eq!(mesh.who_has(&item.hash()), [identity(5).id()], "only who is here can be asked");
    assert!(mesh.is_hearsay(&identity(5).id(), &item.hash()));
    assert_eq!(mesh.peers()[0].faults, 0);

    // No answer at all.
    let mesh = crowd_of_one().await;
    let (_endpoint, _conn) = hostile_home(&mesh, 6, None).await;
    mesh.locate(&item.hash()).await;
    assert!(mesh.who_has(&item.hash()).is_empty());

    // Too long, too many, twice the same, nobody.
    let twice = [&[2][..], &[7; 64]].concat();
    for body in [vec![9; 258], [&[9][..], &[7; 9 * 32]].concat(), twice, vec![0]] {
        let mesh = crowd_of_one().await;
        let (_endpoint, conn) = hostile_home(&mesh, 7, Some(names(&body))).await;
        mesh.locate(&item.hash()).await;
        assert_eq!(crate::registry::closed_with(&conn.closed().await), Some(code::BANNED));
    }
}

#[tokio::test]
async fn strangers_do_not_learn_from_members_who_holds_what() {
    let item = Item::new(1, 1_000, true);
    let mut seed_config = config(1);
    seed_config.secret = Some(secret("correct horse battery staple"));
    seed_config.strangers = Strangers::Public;
    seed_config.limits.full_peers = 0;
    let seed = start(seed_config, &World::new([item.clone()])).await;
    let mut member = with_peer(config(2), &seed);
    member.secret = Some(secret("correct horse battery staple"));
    member.limits.full_peers = 0;
    let member = start(member, &World::new([])).await;
    eventually("the member can ask", || member.knows_in_part()).await;
    let (_endpoint, conn) = raw_stranger(&identity(5), &seed).await;
    let question = Request::Locate { prefix: item.hash().prefix() }.encode();
    assert_eq!(ask_raw(&conn, &question).await, [Status::No.to_byte()]);
    // The stranger is told everything that is public instead of a portion.
    let mut uni = conn.accept_uni().await.unwrap();
    while uni.read_u8().await.unwrap() != crate::frames::UNI_HOLDINGS {
        uni = conn.accept_uni().await.unwrap();
    }
    member.locate(&item.hash()).await;
    assert_eq!(member.who_has(&item.hash()), [seed.id()]);
}
