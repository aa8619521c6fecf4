#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use haulout_swarm::rate::Urgency;
use haulout_swarm::site::{Cut, OutsideId, SiteKey, SiteKind};

use crate::frames::{MINOR_PACKED, Request, Status};
use crate::hostile::{client_of, hostile_server_of, raw_stranger};
use crate::siteframe::{SITE_HEADER_LEN, SiteHead, packed_header, parse_packed, parse_site_header};
use crate::support::*;
use crate::{SiteEnd, SiteFrame, SitePiece, SiteRequest, StreamError};

const SIZE: u64 = 1_000_000;

fn request(kind: SiteKind) -> SiteRequest {
    SiteRequest {
        segment: SiteKey { kind, id: [kind.to_byte(); 32] }.segment(0),
        size: Cut::of(kind, SIZE),
        from: 0,
        outside: OutsideId::from_bytes([5; 32]),
        descriptor: Bytes::new(),
        held: false,
        urgency: Urgency::Awaited,
        packed: true,
    }
}

/// Text-like bytes: zstd finds a half in them at least.
fn text() -> Vec<u8> {
    (0..SIZE).map(|n| b"abcdefgh"[(n * n / 77 % 8) as usize]).collect()
}

/// The same in capitals.
fn other_text() -> Vec<u8> {
    text().to_ascii_uppercase()
}

fn gives(world: &World, bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    *world.site.lock().unwrap() = Some(Box::new(move |request| {
        let rest = bytes.slice(request.from as usize..);
        Script::source([
            (Duration::ZERO, SitePiece::Bytes(rest)),
            (Duration::ZERO, SitePiece::End(SiteEnd::Complete)),
        ])
    }));
}

/// What goes over the wire in answer: bytes in plain frames, bytes in packed ones, and what the latter stand for.
fn frames(mut answer: &[u8]) -> (usize, usize, usize) {
    let mut take = |len: usize| {
        let (taken, rest) = answer.split_at(len);
        answer = rest;
        taken
    };
    assert_eq!(take(1), [Status::Ok.to_byte()]);
    let (mut plain, mut packed, mut stand_for) = (0, 0, 0);
    loop {
        let head = take(SITE_HEADER_LEN).try_into().unwrap();
        match parse_site_header(head, SIZE).unwrap() {
            SiteHead::Waiting => {}
            SiteHead::End(end) => {
                assert_eq!(end, SiteEnd::Complete);
                return (plain, packed, stand_for);
            }
            SiteHead::Bytes(len) => plain += take(len).len(),
            SiteHead::Packed(len) => {
                stand_for += parse_packed(take(4).try_into().unwrap(), len, SIZE).unwrap();
                packed += take(len).len();
            }
        }
    }
}

#[tokio::test]
async fn on_a_narrow_link_what_shrinks_goes_packed_and_the_rest_as_it_is() {
    let world = World::new([]);
    let mut limited = config(1);
    limited.upload = Some(20 << 20);
    let home = start(limited, &world).await;
    let asker = start(with_peer(config(2), &home), &World::new([])).await;
    let (_endpoint, raw) = raw_stranger(&identity(9), &home).await;
    let mut noise = vec![0; SIZE as usize];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    for (kind, bytes, shrinks) in [
        (SiteKind::Nar, text(), Some(true)),
        // What came first was wrong, and has been replaced meanwhile. Whether a processor is idle is another matter by now.
        (SiteKind::Nar, other_text(), None),
        (SiteKind::UpstreamFile, noise, Some(false)),
        (SiteKind::Sliver, text(), Some(false)),
    ] {
        gives(&world, bytes.clone());
        let (mut send, mut recv) = raw.open_bi().await.unwrap();
        send.write_all(&Request::Site(request(kind)).encode()).await.unwrap();
        send.finish().unwrap();
        let (plain, packed, stand_for) = frames(&recv.read_to_end(2 << 20).await.unwrap());
        assert_eq!(plain + stand_for, bytes.len());
        assert!(shrinks.is_none_or(|shrinks| shrinks == (packed > 0)), "{kind:?}");
        assert!(2 * packed <= stand_for, "{packed} for {stand_for}");

        // The second asker gets the same, and reads it as it was.
        eventually("connected", || asker.peers().iter().any(|peer| peer.id == home.id())).await;
        let mut stream = asker.site(&home.id(), request(kind), SOON).await.unwrap();
        let mut all = Vec::new();
        loop {
            match stream.next().await.unwrap() {
                SiteFrame::Bytes(piece) => all.extend_from_slice(&piece),
                SiteFrame::Waiting => {}
                SiteFrame::End(end) => break assert_eq!(end, SiteEnd::Complete),
            }
        }
        assert!(all == bytes, "{kind:?}");
    }
}

#[tokio::test]
async fn lies_about_packed_frames_are_recognised() {
    let zeros = zstd::bulk::compress(&vec![0; 200_000], 1).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let frame =
        |data: &[u8], raw_len: usize| [&packed_header(data.len(), raw_len)[..], data].concat();
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("honest", frame(&zeros, 200_000), true),
        ("a bomb", frame(&bomb, 200_000), false),
        ("longer than it says", frame(&zeros, 100_000), false),
        ("shorter than it says", frame(&zeros, 250_000), false),
        ("garbage", frame(&[7; 50], 200_000), false),
        ("more than is due", frame(&zeros, 262_145), false),
        ("no shorter", frame(&[7; 50], 50), false),
        ("empty", frame(&[], 50), false),
        ("huge", packed_header(262_144, 262_144).to_vec(), false),
    ];
    for (what, body, honest) in cases {
        let liar = identity(9);
        let addr = hostile_server_of(MINOR_PACKED, &liar, move |_, mut send| {
            let body = body.clone();
            tokio::spawn(async move {
                let _ = send.write_all(&[Status::Ok.to_byte()]).await;
                let _ = send.write_all(&body).await;
                tokio::time::sleep(Duration::from_secs(30)).await;
            })
        })
        .await;
        let mesh = client_of(addr, &liar).await;
        let mut stream = mesh.site(&liar.id(), request(SiteKind::Nar), SOON).await.unwrap();
        match stream.next().await {
            Ok(SiteFrame::Bytes(bytes)) if honest => assert_eq!(bytes, vec![0; 200_000]),
            Err(StreamError::Protocol(_)) if !honest => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}
