//! Reading from an aggregator when no storage node answers: what a real one answered (Walrus 1.37), byte for byte, and ones
//! that say something else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use haulout_walrus::{
    Client, Committee, ObjectId, ReadError, ReadOptions, StaticChain, StorageNode,
};
use redstuff::{BlobId, ShardCount, ShardIndex};
use serde::Deserialize;
use support::recorded::plaintext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[derive(Debug, Deserialize)]
struct Recording {
    n_shards: u16,
    cases: Vec<Case>,
}

#[derive(Debug, Clone, Deserialize)]
struct Case {
    name: String,
    path: String,
    status_line: String,
    headers: Vec<(String, String)>,
    /// The blob that is the body.
    blob: Option<Blob>,
    #[serde(default)]
    text: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Blob {
    name: String,
    length: usize,
}

impl Recording {
    fn load() -> Self {
        serde_json::from_str(include_str!("data/aggregator.json")).unwrap()
    }

    fn case(&self, name: &str) -> Case {
        self.cases.iter().find(|case| case.name == name).unwrap().clone()
    }
}

impl Case {
    fn id(&self) -> BlobId {
        self.path.rsplit('/').next().unwrap().parse().unwrap()
    }

    fn content(&self) -> Vec<u8> {
        match &self.blob {
            Some(blob) => plaintext(&blob.name, blob.length),
            None => self.text.clone().into_bytes(),
        }
    }

    /// The whole answer as it was on the wire.
    fn answer(&self) -> Vec<u8> {
        let mut answer = format!("{}\r\n", self.status_line);
        self.headers.iter().for_each(|(name, value)| answer += &format!("{name}: {value}\r\n"));
        [answer.into_bytes(), b"\r\n".to_vec(), self.content()].concat()
    }
}

/// An aggregator that gives these answers, by path; its base URL, and how often it was asked.
async fn aggregator(answers: Vec<(String, Vec<u8>)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (answers, asked) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answers = Arc::clone(&answers);
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.ok()?);
                }
                let head = String::from_utf8(head).ok()?;
                let path = head.split(' ').nth(1)?;
                let (_, answer) = answers.iter().find(|(known, _)| known == path)?;
                stream.write_all(answer).await.ok()
            });
        }
    });
    (url, asked)
}

/// A client whose storage nodes are all down.
fn client(n: u16, aggregators: &[&String]) -> Client {
    let node = |at: u16| StorageNode {
        node_id: ObjectId([at as u8 + 1; 32]),
        name: String::new(),
        address: "127.0.0.1:1".to_owned(),
        network_public_key: [&[2][..], &[at as u8 + 1; 32]].concat(),
        bls_public_key: [0; 48],
        shards: vec![ShardIndex(at)],
    };
    let n = ShardCount::new(n).unwrap();
    let committee = Committee::new(1, n, (0..n.get()).map(node).collect()).unwrap();
    let chain = Arc::new(StaticChain::new(committee));
    Client::new(chain).with_aggregators(aggregators.iter().map(|url| (*url).clone()))
}

#[tokio::test]
async fn every_blob_is_read_as_a_real_aggregator_gave_it() {
    let recording = Recording::load();
    let answers = recording.cases.iter().map(|case| (case.path.clone(), case.answer())).collect();
    let (url, _) = aggregator(answers).await;
    let client = client(recording.n_shards, &[&url]);
    let blobs: Vec<_> = recording.cases.iter().filter(|case| case.blob.is_some()).collect();
    assert!(blobs.len() >= 10);
    let read = |case: &&Case| {
        let (client, case, url) = (client.clone(), (*case).clone(), url.clone());
        async move {
            let (bytes, report) = client.read(&case.id(), &ReadOptions::default()).await.unwrap();
            assert!(bytes == case.content(), "{}", case.name);
            assert_eq!(report.aggregator.as_deref(), Some(url.as_str()));
        }
    };
    futures_util::future::join_all(blobs.iter().map(read)).await;
    // A part of one is cut from it.
    let case = recording.case("blob-p-65536");
    let part = client.read_range(&case.id(), 60_000..65_536, &ReadOptions::default()).await;
    assert!(part.unwrap().0 == case.content()[60_000..]);
}

#[tokio::test]
async fn what_an_aggregator_does_not_have_or_gives_wrongly_is_not_read() {
    let recording = Recording::load();
    let (missing, good) = (recording.case("missing"), recording.case("blob-p-4097"));
    let other = recording.case("blob-p-1000");
    let cut = {
        let mut answer = good.answer();
        answer.truncate(answer.len() - 1);
        answer
    };
    // The first gives another blob under this id, the second breaks off, the third says that there is none.
    let (liar, asked) = aggregator(vec![(good.path.clone(), other.answer())]).await;
    let (broken, broken_asked) = aggregator(vec![(good.path.clone(), cut)]).await;
    let (none, _) = aggregator(vec![
        (good.path.clone(), missing.answer()),
        (missing.path.clone(), missing.answer()),
    ])
    .await;
    let (honest, _) = aggregator(vec![(good.path.clone(), good.answer())]).await;
    let all = client(recording.n_shards, &[&liar, &broken, &none, &honest]);
    let (bytes, report) = all.read(&good.id(), &ReadOptions::default()).await.unwrap();
    assert!(bytes == good.content());
    assert_eq!(report.aggregator, Some(honest));
    assert_eq!((asked.load(Ordering::Relaxed), broken_asked.load(Ordering::Relaxed)), (1, 1));
    for (urls, id) in [(vec![&liar, &broken], good.id()), (vec![&none], missing.id())] {
        let failed = client(recording.n_shards, &urls).read(&id, &ReadOptions::default()).await;
        // The storage nodes' own account, not an aggregator's word.
        assert!(matches!(failed, Err(ReadError::NoMetadata { .. })), "{failed:?}");
    }
}
