//! Site objects between two meshes: standings, relaying while it arrives, negative answers, limits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use haulout_mesh::{Mesh, MeshConfig, SiteEnd, SiteFrame, SitePiece, SiteRequest, SiteStream};
use haulout_swarm::rate::Urgency;
use haulout_swarm::site::{Cut, OutsideId, SiteKey, SiteKind};
use support::*;

const OUTSIDE: OutsideId = OutsideId::from_bytes([5; 32]);

fn request(size: u64, from: u64) -> SiteRequest {
    SiteRequest {
        segment: SiteKey { kind: SiteKind::UpstreamFile, id: [1; 32] }.segment(0),
        size: Cut::new(size),
        from,
        outside: OUTSIDE,
        descriptor: Bytes::from_static(b"what a home must know"),
        held: false,
        urgency: Urgency::Awaited,
        packed: false,
    }
}

async fn pair() -> (std::sync::Arc<World>, Mesh, Mesh) {
    pair_with(config(1)).await
}

async fn pair_with(home: MeshConfig) -> (std::sync::Arc<World>, Mesh, Mesh) {
    let world = World::new([]);
    let home = start(home, &world).await;
    let asker = start(with_peer(config(2), &home), &World::new([])).await;
    home.set_standing(true, &[OUTSIDE.tag()]);
    eventually("the standing is known", || {
        asker.standing_of(&home.id()).is_some_and(|s| s.willing)
    })
    .await;
    (world, home, asker)
}

async fn read_all(stream: &mut SiteStream) -> (Vec<u8>, usize, SiteEnd) {
    let (mut bytes, mut waits) = (Vec::new(), 0);
    loop {
        match stream.next().await.unwrap() {
            SiteFrame::Waiting => waits += 1,
            SiteFrame::Bytes(piece) => bytes.extend_from_slice(&piece),
            SiteFrame::End(end) => return (bytes, waits, end),
        }
    }
}

#[tokio::test]
async fn standings_follow_changes_and_rank_the_homes() {
    let (_world, home, asker) = pair().await;
    let segment = request(1000, 0).segment;
    assert_eq!(asker.homes(&segment, OUTSIDE.tag(), 5), [home.id()]);
    assert!(asker.homes(&segment, 1, 5).is_empty(), "it is not configured for that place");
    asker.set_standing(true, &[OUTSIDE.tag(), 1]);
    eventually("both agree", || {
        let order = asker.homes(&segment, OUTSIDE.tag(), 5);
        order.len() == 2 && order == home.homes(&segment, OUTSIDE.tag(), 5)
    })
    .await;
    home.set_standing(false, &[OUTSIDE.tag()]);
    eventually("the home declines", || asker.homes(&segment, OUTSIDE.tag(), 5) == [asker.id()])
        .await;
    home.shutdown().await;
    eventually("and is forgotten", || asker.standing_of(&home.id()).is_none()).await;
}

#[tokio::test]
async fn bytes_come_while_they_arrive_and_waiting_is_told() {
    let (world, home, asker) = pair().await;
    *world.site.lock().unwrap() = Some(Box::new(|request| {
        assert_eq!((request.from, &request.descriptor[..]), (100, &b"what a home must know"[..]));
        let piece = |len| SitePiece::Bytes(Bytes::from(vec![7; len]));
        Script::source([
            (Duration::ZERO, piece(400_000)),
            (Duration::from_millis(900), piece(599_900)),
        ])
    }));
    let mut stream = asker.site(&home.id(), request(1_000_000, 100), SOON).await.unwrap();
    let mut first = 0;
    while first < 400_000 {
        match stream.next().await.unwrap() {
            SiteFrame::Bytes(bytes) => first += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    let (rest, waits, end) = read_all(&mut stream).await;
    assert_eq!((first + rest.len(), end), (999_900, SiteEnd::Complete));
    assert!(waits >= 1, "nothing told that it waits");
}

#[tokio::test]
async fn every_no_says_which() {
    let (world, home, asker) = pair().await;
    for end in [SiteEnd::Absent, SiteEnd::Refused, SiteEnd::Busy, SiteEnd::Failed] {
        *world.site.lock().unwrap() = Some(Box::new(move |_| Box::new(end)));
        let mut stream = asker.site(&home.id(), request(0, 0), SOON).await.unwrap();
        assert_eq!(read_all(&mut stream).await, (Vec::new(), 0, end));
    }
    *world.site.lock().unwrap() = Some(Box::new(|request| {
        assert_eq!(request.size, None);
        let document = SitePiece::Bytes(Bytes::from_static(b"a document"));
        Script::source([
            (Duration::ZERO, document),
            (Duration::ZERO, SitePiece::End(SiteEnd::Complete)),
        ])
    }));
    let mut stream = asker.site(&home.id(), request(0, 0), SOON).await.unwrap();
    assert_eq!(read_all(&mut stream).await, (b"a document".to_vec(), 0, SiteEnd::Complete));
}

#[tokio::test]
async fn a_source_that_gives_too_much_is_cut_off() {
    let (world, home, asker) = pair().await;
    *world.site.lock().unwrap() = Some(Box::new(|_| {
        Script::source([(Duration::ZERO, SitePiece::Bytes(Bytes::from(vec![0; 1001])))])
    }));
    let mut stream = asker.site(&home.id(), request(1000, 0), SOON).await.unwrap();
    assert!(stream.next().await.is_err());
}

/// What does not shrink.
fn noise(len: u64) -> Bytes {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Reads until so many bytes are there.
async fn read_bytes(stream: &mut SiteStream, most: usize) -> usize {
    let mut bytes = 0;
    while bytes < most {
        match stream.next().await.unwrap() {
            SiteFrame::Bytes(piece) => bytes += piece.len(),
            SiteFrame::Waiting => {}
            SiteFrame::End(end) => panic!("{end:?}"),
        }
    }
    bytes
}

#[tokio::test]
async fn what_is_fetched_ahead_makes_way_for_what_somebody_waits_for() {
    let (world, home, asker) = pair_with(MeshConfig { upload: Some(8_000_000), ..config(1) }).await;
    *world.site.lock().unwrap() = Some(Box::new(|request| {
        Script::source([(Duration::ZERO, SitePiece::Bytes(noise(request.segment_len().unwrap())))])
    }));
    let ahead = SiteRequest { urgency: Urgency::Ahead, ..request(4_000_000, 0) };
    let mut ahead = asker.site(&home.id(), ahead, SOON).await.unwrap();
    // Alone on the line it has all of it.
    read_bytes(&mut ahead, 500_000).await;
    let counted = tokio::spawn(async move {
        let mut bytes = 0;
        loop {
            bytes += read_bytes(&mut ahead, 1).await;
            if bytes >= 3_000_000 {
                return;
            }
        }
    });
    let mut awaited = asker.site(&home.id(), request(1_500_000, 0), SOON).await.unwrap();
    let (bytes, _, end) = read_all(&mut awaited).await;
    assert_eq!((bytes.len(), end), (1_500_000, SiteEnd::Complete));
    assert!(!counted.is_finished(), "twice as much was sent ahead meanwhile");
    counted.await.unwrap();
}

#[tokio::test]
async fn who_stops_listening_stops_the_source() {
    struct Dropped(std::sync::mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    impl haulout_mesh::SiteSource for Dropped {
        fn next(&mut self) -> std::pin::Pin<Box<dyn Future<Output = SitePiece> + Send + '_>> {
            Box::pin(std::future::pending())
        }
    }
    let (world, home, asker) = pair().await;
    let (send, dropped) = std::sync::mpsc::channel();
    *world.site.lock().unwrap() = Some(Box::new(move |_| Box::new(Dropped(send.clone()))));
    let stream = asker.site(&home.id(), request(1000, 0), SOON).await.unwrap();
    drop(stream);
    eventually("the source is dropped", || dropped.try_recv().is_ok()).await;
}
