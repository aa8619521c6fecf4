//! Real stores, the real mesh over loopback: what A holds, B resolves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use haulout_nix::db::StoreLocation;
use haulout_nix::{KeySet, NarHash, PathInfo, SecretKey};
use haulout_resolver::ResolverConfig;
use haulout_sample::{Sample, SampleSpec, SampleStore};
use support::{Agent, addresses, identity, key, keys, mesh_config, until};

async fn start(root: &Path, seed: u8, peers: &[&Agent]) -> Agent {
    Agent::on(root, seed, addresses(peers.iter().map(|peer| &peer.mesh))).await
}

fn office(dir: &Path, paths: usize, bytes: u64) -> SampleStore {
    let key = key();
    Sample::generate(dir, SampleSpec { unsigned: 1, ..SampleSpec::new(3, paths, bytes, &key) })
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_signed_in_one_store_is_resolved_by_another_machine() {
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = office(dir_a.path(), 120, 24 << 20);
    let a = start(dir_a.path(), 1, &[]).await;
    let b = start(dir_b.path(), 2, &[&a]).await;
    let signed = |info: &&PathInfo| !info.signatures.is_empty();
    let shared: Vec<&PathInfo> = store.paths.iter().filter(signed).collect();
    b.knows(shared[0], 1).await;
    for info in store.paths.iter().rev() {
        let found = b.resolver.path_info(info.path.hash_part()).await;
        if info.signatures.is_empty() {
            assert!(found.is_none(), "{} is not signed and stays where it is", info.path);
            assert!(b.nar(info).await.is_none());
            continue;
        }
        let found = found.unwrap_or_else(|| panic!("{} was not found", info.path));
        assert_eq!(*found, *info);
        let nar = b.nar(info).await.unwrap();
        assert_eq!(NarHash::of(&nar), info.nar_hash);
        let half = info.nar_size / 2;
        assert!(b.nar_from(info, half).await.unwrap() == nar[usize::try_from(half).unwrap()..]);
    }
    let stats = b.resolver.stats();
    assert!(
        stats.info_memory.get() > stats.info_peers.get(),
        "most infos came ahead: {} of memory, {} asked for",
        stats.info_memory.get(),
        stats.info_peers.get()
    );
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_serve_a_third_and_the_death_of_one_is_not_noticed() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let store = office(dirs[0].path(), 40, 160 << 20);
    office(dirs[1].path(), 40, 160 << 20);
    let a = start(dirs[0].path(), 1, &[]).await;
    let b = start(dirs[1].path(), 2, &[]).await;
    let c = start(dirs[2].path(), 3, &[&a, &b]).await;
    let big = store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    c.knows(big, 2).await;
    let nar = c.nar(big).await.unwrap();
    assert_eq!(NarHash::of(&nar), big.nar_hash);
    let views = c.mesh.peers();
    assert!(views.iter().all(|view| view.bytes_taken > 0), "both gave something");

    // Once more, and A goes in the middle.
    let mut body = c.resolver.nar(big.path.hash_part(), big.nar_hash, 0).await.unwrap();
    let mut all = body.stream.next().await.unwrap().unwrap().to_vec();
    a.mesh.shutdown().await;
    while let Some(piece) = body.stream.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert!(all == nar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_store_answers_what_is_trusted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = office(dir.path(), 30, 4 << 20);
    let a = start(dir.path(), 1, &[]).await;
    for info in &store.paths {
        let found = a.resolver.path_info(info.path.hash_part()).await;
        assert_eq!(found.is_some(), !store.unsigned.contains(&info.path), "{}", info.path);
        if found.is_some() {
            assert_eq!(NarHash::of(&a.nar(info).await.unwrap()), info.nar_hash);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_does_not_make_its_source_look_silent() {
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = office(dir_a.path(), 40, 160 << 20);
    let a = start(dir_a.path(), 1, &[]).await;
    let b = start(dir_b.path(), 2, &[&a]).await;
    let big = store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    b.knows(big, 1).await;
    let mut body = b.resolver.nar(big.path.hash_part(), big.nar_hash, 0).await.unwrap();
    let mut all = body.stream.next().await.unwrap().unwrap().to_vec();
    // Nix is busy: nothing more is read, so nothing more arrives.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for info in store.paths.iter().filter(|info| !info.signatures.is_empty()) {
        assert!(b.resolver.path_info(info.path.hash_part()).await.is_some(), "{}", info.path);
    }
    let small = store.paths.iter().filter(|info| !info.signatures.is_empty());
    let small = small.min_by_key(|info| info.nar_size).unwrap();
    assert_eq!(NarHash::of(&b.nar(small).await.unwrap()), small.nar_hash);
    while let Some(piece) = body.stream.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(NarHash::of(&all), big.nar_hash);
}

/// Two offices whose signing keys differ and are called the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_meshes_with_keys_of_one_name_leave_each_other_in_peace() {
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let namesake = SecretKey::from_seed("office-1", [8; 32]).unwrap();
    let common = key();
    let spec =
        SampleSpec { foreign: Some((&common, 5)), ..SampleSpec::new(3, 20, 2 << 20, &namesake) };
    let store = Sample::generate(dir_a.path(), spec).unwrap();
    // A believes both keys, B only one of them.
    let both: KeySet =
        [&namesake, &common].map(|key| key.public_key().clone()).into_iter().collect();
    let config = ResolverConfig::new(StoreLocation::chroot(dir_a.path()), both);
    let a = Agent::start(&config, mesh_config(identity(1), Vec::new())).await;
    let b = start(dir_b.path(), 2, &[&a]).await;
    let by_ours =
        |info: &PathInfo| info.verified_by(&haulout_nix::StoreDir::default(), &keys()).is_some();
    b.knows(&store.paths[0], 1).await;
    for info in &store.paths {
        let found = b.resolver.path_info(info.path.hash_part()).await;
        assert_eq!(found.is_some(), by_ours(info), "{}", info.path);
    }
    assert_eq!(store.paths.iter().filter(|info| by_ours(info)).count(), 5);
    let views = b.mesh.peers();
    assert!(views.iter().all(|view| view.banned_for.is_none() && view.faults == 0), "{views:?}");
    a.mesh.shutdown().await;
    b.mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_new_paths_are_hashed_before_anybody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path(), 1, &[]).await;
    let store = office(dir.path(), 20, 40 << 20);
    let large = store.paths.iter().filter(|info| info.nar_size >= 4 << 20);
    let large = large.filter(|info| !info.signatures.is_empty()).count() as u64;
    assert!(large > 0);
    until("trees were made", || agent.resolver.stats().trees_ahead.get() >= large).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_pauses_gives_nothing_and_announces_nothing_until_it_goes_on() {
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = office(dir_a.path(), 20, 2 << 20);
    let a = start(dir_a.path(), 1, &[]).await;
    let b = start(dir_b.path(), 2, &[&a]).await;
    let info = store.paths.iter().find(|info| !info.signatures.is_empty()).unwrap();
    b.knows(info, 1).await;
    a.resolver.pause_sharing(true);
    // New keys do not end a pause.
    let policy = haulout_resolver::SharePolicy { keys: keys(), ..Default::default() };
    a.resolver.set_share_policy(policy);
    b.knows(info, 0).await;
    assert!(b.resolver.path_info(info.path.hash_part()).await.is_none());
    let (asker, patience) = (a.mesh.id(), Duration::from_secs(5));
    assert!(b.mesh.path_infos(&asker, &info.path.hash_part(), 1, patience).await.is_err());
    assert!(a.resolver.path_info(info.path.hash_part()).await.is_some(), "its own Nix is served");
    a.resolver.pause_sharing(false);
    b.knows(info, 1).await;
    assert_eq!(NarHash::of(&b.nar(info).await.unwrap()), info.nar_hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_peers_is_no_faster_than_its_limit_and_comes_all_the_same() {
    const RATE: u64 = 8 << 20;
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = office(dir_a.path(), 20, 16 << 20);
    let a = start(dir_a.path(), 1, &[]).await;
    let b = start(dir_b.path(), 2, &[&a]).await;
    b.resolver.limit_from_peers(Some(RATE));
    let signed = || store.paths.iter().filter(|info| !info.signatures.is_empty());
    b.knows(signed().next().unwrap(), 1).await;
    let begun = Instant::now();
    let nars = signed().map(|info| async {
        assert_eq!(NarHash::of(&b.nar(info).await.unwrap()), info.nar_hash);
        info.nar_size
    });
    let bytes: u64 = futures_util::future::join_all(nars).await.into_iter().sum();
    // What was taken last need not be waited for: a piece of each of two streams, and the burst.
    let least = bytes.saturating_sub(3 << 20) as f64 / RATE as f64 - 0.2;
    assert!(begun.elapsed().as_secs_f64() > least, "{bytes} bytes in {:?}", begun.elapsed());
}
