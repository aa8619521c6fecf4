//! Requests that mean harm: nothing panics, nothing is kept for long, nothing grows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use redstuff::bcs::Wire;
use support::{Stage, bytes, sliver_path, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A node is well if it answers this.
async fn is_well(stage: &Stage) {
    assert_eq!(stage.client(0).await.get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn strange_requests_are_refused_one_by_one() {
    let stage = Stage::new(10, 2);
    let mut client = stage.client(0).await;
    let encoded = stage.store(&bytes(1, 100), 9).await;
    let id = *encoded.metadata().id();
    let at = format!("/v1/blobs/{id}");
    for (path, status) in [
        ("/v1/blobs/%ff%fe/metadata".to_owned(), 400),
        (format!("/v1/blobs/{}/metadata", "A".repeat(8_000)), 400),
        (format!("{at}/slivers/00000000000000000001/primary"), 200),
        (format!("{at}/slivers/99999999999999999999/primary"), 400),
        (format!("{at}/recoverySymbols/0-10"), 400),
        (format!("{at}/recoverySymbols/0"), 400),
        (format!("{at}/recoverySymbols?targetSliver=10&targetType=primary"), 400),
        (format!("{at}/recoverySymbols?id={}", ["0-0"; 2_000].join("&id=")), 200),
        (format!("{at}/decodingSymbols?targetType=primary"), 400),
        (format!("{at}/decodingSymbols?targetSlivers=4&targetType=primary"), 400),
        (format!("{at}/decodingSymbols?targetSlivers=3&targetType=primary"), 200),
        (format!("{at}/confirmation/deletable/0x00"), 400),
        (format!("{at}/confirmation/permanent?wait_for_registration=yes"), 400),
        (format!("{at}/status/"), 404),
        ("/v1/health?detailed=1".to_owned(), 400),
    ] {
        // Symbols may belong to the other node's shards: either way the request is answered.
        let got = client.get(&path).await;
        let other = path.contains("slivers/0000") || path.contains("id=0-0");
        assert!(got.status == status || other && got.status == 400, "{path}: {got:?}");
    }
    is_well(&stage).await;
}

#[tokio::test]
async fn bodies_that_are_no_bodies() {
    let stage = Stage::new(10, 1);
    let mut client = stage.client(0).await;
    let encoded = stage.n.encode(bytes(2, 70_000)).unwrap();
    let id = *encoded.metadata().id();
    stage.chain.register(id, [1; 32], false, 9);
    let metadata = encoded.metadata().as_unverified().to_bcs();
    let about = format!("/v1/blobs/{id}/metadata");

    // Every truncation, every length said to be huge.
    for length in 0..metadata.len() {
        let got = client.put(&about, metadata[..length].to_vec()).await;
        assert_eq!(got.status, 400, "{length}");
    }
    let mut huge = metadata[..10].to_vec();
    huge.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]);
    assert_eq!(client.put(&about, huge).await.gist(), "INVALID_CONTENT_TYPE");
    assert_eq!(client.put(&about, metadata).await.status, 201);
    let path = sliver_path(&id, redstuff::PairIndex(0), "primary");
    for body in [&[][..], &[0], &[0xff; 5], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], &[0; 64]] {
        assert_eq!(client.put(&path, body.to_vec()).await.status, 400, "{body:?}");
    }
    // Longer than any sliver can be, with and without saying so.
    let max = usize::try_from(stage.n.max_sliver_size()).unwrap() + 129;
    let got = client.try_send("PUT", &path, &[], Bytes::from(vec![0; max])).await;
    assert!(got.is_err() || got.is_ok_and(|got| got.status == 413));
    let proof = format!("/v1/blobs/{id}/inconsistencyProof/secondary");
    let got = client.send("POST", &proof, &[], vec![0, 0, 0xff, 0xff, 0xff, 0xff, 0x07]).await;
    assert_eq!(got.gist(), "INVALID_CONTENT_TYPE");
    let got = client.send("POST", &proof, &[], vec![0, 0, 0]).await;
    assert_eq!(got.gist(), "INVALID_PROOF");
    is_well(&stage).await;
}

#[tokio::test]
async fn synchronisation_is_for_members_only() {
    use haulout_walrus::bls::SecretKey;
    use redstuff::messages::{ProtocolMessage, SignedMessage, SyncShard};
    use redstuff::{AxisKind, BlobId, ShardIndex};

    let stage = Stage::new(10, 2);
    let stranger = SecretKey::from_seed(&[3; 32]).unwrap();
    let request = SyncShard {
        shard: ShardIndex(0),
        axis: AxisKind::Primary,
        starting_blob: BlobId([0; 32]),
        count: 10,
        epoch: 1,
    };
    let message = ProtocolMessage { epoch: 1, content: request }.to_bcs();
    let signed = SignedMessage { signature: stranger.sign(&message), message };
    let base64 = |key: &[u8]| data_encoding::BASE64.encode(key);
    let mut client = stage.client(0).await;
    let path = "/v1/migrate/sync_shard";
    let mine = base64(&stranger.public_key().to_bytes());
    let theirs = base64(&stage.committee.members[1].bls_public_key);
    for (authorization, expected) in [
        ("", (400, "Invalid")),
        ("AAAA", (400, "Invalid")),
        (mine.as_str(), (403, "REQUEST_UNAUTHORIZED")),
        (theirs.as_str(), (400, "MESSAGE_VERIFICATION_FAILED")),
    ] {
        let headers = [("authorization", authorization)];
        let got = client.send("POST", path, &headers, signed.to_bcs()).await;
        assert_eq!(got.status, expected.0);
        assert!(String::from_utf8_lossy(&got.body).contains(expected.1), "{got:?}");
    }
}

#[tokio::test]
async fn slow_and_broken_connections_hold_nobody_up() {
    let stage = Stage::new(10, 1);
    let member = &stage.committee.members[0];
    let address = member.address.parse().unwrap();
    let key = &member.network_public_key;
    let mut open = Vec::new();
    for index in 0..50 {
        // Half a request head, half a body, nothing at all, not even TLS.
        let text: &[u8] = match index % 4 {
            0 => b"GET /v1/hea",
            1 => b"PUT /v1/blobs/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/metadata HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\nabc",
            2 => b"",
            _ => {
                let mut raw = tokio::net::TcpStream::connect(address).await.unwrap();
                raw.write_all(&[0x16, 0x03]).await.unwrap();
                open.push(tokio::spawn(async move {
                    let mut end = Vec::new();
                    let _ = raw.read_to_end(&mut end).await;
                }));
                continue;
            }
        };
        let mut stream = tls(address, key, b"http/1.1").await.unwrap();
        stream.write_all(text).await.unwrap();
        stream.flush().await.unwrap();
        open.push(tokio::spawn(async move {
            let mut end = Vec::new();
            let _ = stream.read_to_end(&mut end).await;
        }));
    }
    is_well(&stage).await;
    // A head that never ends is not collected for ever.
    let mut stream = tls(address, key, b"http/1.1").await.unwrap();
    let line = [b'a'; 4_096];
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&line).await.is_ok() {
        sent += line.len();
    }
    assert!(sent < 64 << 20, "a head of {sent} bytes was read");
    is_well(&stage).await;
    for task in open {
        task.abort();
    }
}
