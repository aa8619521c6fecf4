//! As many shards as the public networks have, on twenty nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use haulout_devnet::storage::{Faults, Lie};
use haulout_devnet::{LocalNet, Plan, files};
use haulout_sui::chain::SuiChain;
use haulout_sui::tx::{KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::{Client, ReadError, ReadOptions, StoreOptions};
use redstuff::quilt::{Quilt, QuiltFile, Tags};
use redstuff::{PairIndex, Secondary, ShardCount, SliverIndex};

const SHARDS: u16 = 1_000;
const NODES: usize = 20;
/// Small files in one quilt: 600 narinfos.
const FILES: usize = 600;

fn file(number: usize) -> QuiltFile {
    let name = format!("{number:04}.narinfo");
    let data = name.bytes().cycle().take(300 + number % 250).collect();
    QuiltFile { identifier: name, tags: Tags::new(), data }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quilt_on_a_thousand_shards_survives_a_third_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { shards: SHARDS, nodes: NODES, ..Plan::new(dir.path()) };
    let net = LocalNet::start(&plan).await.unwrap();
    let n = ShardCount::new(SHARDS).unwrap();
    let quilt = Quilt::new(n, (0..FILES).map(file).collect()).unwrap();
    let blob = quilt.blob().to_vec();
    let chain = Arc::new(SuiChain::new(net.network()));
    let signer = Signer::open(&KeySource::File(dir.path().join(files::ACCOUNT))).unwrap();
    let wallet = Wallet::new(chain.clone(), signer, None, Arc::new(|_: &_| true));
    let registrar = SuiRegistrar::new(Arc::new(wallet));
    let client = Client::new(chain);
    let encoded = Arc::new(n.encode(blob.clone()).unwrap());
    let stored = client.store(&registrar, encoded, &StoreOptions::permanent(3)).await.unwrap();
    let (id, options) = (stored.blob, ReadOptions::default());
    assert!(stored.confirmed_shards >= 667);

    let (read, report) = client.read(&id, &options).await.unwrap();
    assert!(read == blob);
    assert_eq!(report.slivers + report.padding, 334);

    // One file costs the metadata, the columns of the index, and its own.
    let (found, report) = client.quilt_file(&id, "0123.narinfo", &options).await.unwrap();
    assert_eq!(found, file(123));
    assert!(report.slivers < 40 && report.metadata_bytes == 66_044, "{report:?}");

    // The column's own node and five more are down: 300 shards of 333. Another one lies.
    let view = client.committees(false).await.unwrap();
    let (index, _) = client.quilt_index(&id, &options).await.unwrap();
    let column = index.find("0123.narinfo").unwrap().columns.start;
    let PairIndex(pair) = SliverIndex::<Secondary>::new(column).pair(n).unwrap();
    let owner = view.current.owner_of_pair(&id, PairIndex(pair)).unwrap();
    let node = |position: usize| {
        let name = &view.current.members[position % NODES].name;
        name.strip_prefix("node-").unwrap().parse().unwrap()
    };
    for position in owner..owner + 6 {
        let faults = Faults { down: true, ..Faults::default() };
        net.nodes().set_faults(node(position), faults).await;
    }
    let lying = Faults { slivers: Some(Lie::Flip), ..Faults::default() };
    net.nodes().set_faults(node(owner + 6), lying).await;
    let (found, report) = client.quilt_file(&id, "0123.narinfo", &options).await.unwrap();
    assert_eq!(found, file(123));
    assert!(report.recovered >= 1, "{report:?}");
    let (read, report) = client.read(&id, &options).await.unwrap();
    assert!(read == blob);
    assert!(report.liars.len() <= 1, "{report:?}");

    // With two thirds gone and one node more it says so.
    for position in 0..14 {
        let faults = Faults { down: true, ..Faults::default() };
        net.nodes().set_faults(node(position), faults).await;
    }
    let error = client.read(&id, &options).await.unwrap_err();
    assert!(matches!(error, ReadError::TooFew { needed: 334, .. }), "{error}");
    net.stop().await;
}
