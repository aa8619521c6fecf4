//! Archives in a directory, from and to real (chroot) stores.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use haulout_depot::{
    ArchiveSource, Blobs, BoxFuture, Certify, DepotError, DirDepot, Kind, NarSource, Policy,
    Reader, Registry, State, Update,
    fund::fund,
    merge::merge,
    publish::{Options, Report, StoreSource, closure, publish},
    verify::verify,
};
use haulout_nix::{HashPart, KeySet, PathInfo, SecretKey, StoreDir, nar::dump};
use haulout_sample::{Sample, SampleSpec, SampleStore};
use redstuff::ShardCount;
use std::{
    collections::HashSet,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Shards of the tests: blobs have at most 393 kB, so that packs and indexes are cut.
const SHARDS: u16 = 4;

struct World {
    dir: tempfile::TempDir,
    store: SampleStore,
    depot: Arc<DirDepot>,
    key: SecretKey,
}

fn key(name: &str, seed: u8) -> SecretKey {
    SecretKey::from_seed(name, [seed; 32]).unwrap()
}

fn world(paths: usize, bytes: u64) -> World {
    let dir = tempfile::tempdir().unwrap();
    let key = key("sample-1", 7);
    let store = Sample::generate(&dir.path().join("store"), SampleSpec::new(3, paths, bytes, &key))
        .unwrap();
    let shards = ShardCount::new(SHARDS).unwrap();
    let depot =
        DirDepot::create(&dir.path().join("archive"), shards, "/nix/store", "test").unwrap();
    World { dir, store, depot: Arc::new(depot), key }
}

impl World {
    fn source(&self) -> Arc<StoreSource> {
        Arc::new(StoreSource::open(&self.store.location).unwrap())
    }

    fn options(&self) -> Options {
        Options {
            epochs: 5,
            level: 3,
            pack_bytes: 300_000,
            scratch: self.dir.path().join("scratch"),
            sign: None,
            today: 20_000,
            progress: None,
        }
    }

    async fn reader(&self) -> Reader {
        let state = self.depot.state().await.unwrap();
        Reader::open(Arc::clone(&self.depot) as Arc<dyn Blobs>, state).await.unwrap()
    }

    fn top(&self) -> Vec<HashPart> {
        vec![self.store.top.hash_part()]
    }

    async fn publish(
        &self,
        source: Arc<dyn NarSource>,
        options: Options,
    ) -> Result<Report, DepotError> {
        let infos = closure(&*source, &self.top(), 10_000).await?;
        publish(self.depot.clone(), self.depot.clone(), source, infos, self.top(), options).await
    }

    /// Every path is in the archive as it is in the store, byte for byte.
    async fn assert_complete(&self) {
        let reader = self.reader().await;
        for info in &self.store.paths {
            let found =
                reader.find(&info.path.hash_part()).await.unwrap().expect("the path is there");
            assert_eq!(found.path.info, *info);
            let (mut got, mut want) = (Vec::new(), Vec::new());
            reader.nar(&found).await.unwrap().write_to(&mut got).await.unwrap();
            dump(&self.store.location.real_path(&info.path), &mut want).unwrap();
            assert!(got == want, "{}", info.path);
            assert_eq!(&found.path.nar.root, blake3::hash(&want).as_bytes());
        }
    }
}

/// A source whose infos promise more than there is.
#[derive(Debug)]
struct Boaster(Arc<StoreSource>);

impl NarSource for Boaster {
    fn info(&self, hash: HashPart) -> BoxFuture<'_, Result<Option<PathInfo>, DepotError>> {
        Box::pin(async move {
            let info = self.0.info(hash).await?;
            Ok(info.map(|info| PathInfo { nar_size: u64::MAX, ..info }))
        })
    }

    fn dump<'a>(
        &'a self,
        info: &'a PathInfo,
        out: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), DepotError>> {
        self.0.dump(info, out)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_that_cannot_be_are_refused() {
    let world = world(10, 1 << 20);
    let source = Arc::new(Boaster(world.source()));
    let error = world.publish(source, world.options()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    assert_eq!(world.depot.state().await.unwrap().sequence, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_file_with_the_largest_numbers_is_no_reason_to_panic() {
    let world = world(10, 1 << 20);
    world.publish(world.source(), world.options()).await.unwrap();
    let state = world.dir.path().join("archive/archive.json");
    let change = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&state).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&state, text.replace(from, to)).unwrap();
    };
    change("\"sequence\": 1,", &format!("\"sequence\": {},", u64::MAX));
    let error = world.depot.update(u64::MAX, &Update::Beat).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");

    world.depot.set_epoch(u32::MAX - 10).unwrap();
    let file = world.dir.path().join("blob");
    std::fs::write(&file, "some bytes").unwrap();
    let stored = world.depot.store(&file, 5, Certify::Now).await.unwrap();
    assert_eq!(stored.end_epoch, u32::MAX - 5);
    let extended = world.depot.extend(stored.blob, stored.object, u32::MAX).await.unwrap();
    assert_eq!(extended, u32::MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_goes_in_and_comes_out() {
    let world = world(60, 6 << 20);
    let report = world.publish(world.source(), world.options()).await.unwrap();
    assert_eq!((report.added, report.present, report.sequence), (world.store.paths.len(), 0, 1));
    assert!(report.packs > 2 && report.packed_bytes < report.nar_bytes, "{report:?}");
    world.assert_complete().await;

    let reader = world.reader().await;
    // Some NAR did not fit into one blob and was cut.
    let (all, next) = reader.list(HashPart::from_bytes([0; 20]), 1000).await.unwrap();
    assert_eq!((all.len(), next), (world.store.paths.len(), None));
    assert!(all.iter().any(|found| found.path.nar.extents.len() > 1), "a NAR should be cut here");
    assert!(all.is_sorted_by(|a, b| a.path.info.path.hash_part() < b.path.info.path.hash_part()));
    let (first, next) = reader.list(HashPart::from_bytes([0; 20]), 10).await.unwrap();
    let (rest, _) = reader.list(next.unwrap(), 1000).await.unwrap();
    assert_eq!(first.len() + rest.len(), all.len());

    // A path that is not there is proven absent, one that is there present.
    let absent = HashPart::from_bytes([0x42; 20]);
    assert!(reader.find(&absent).await.unwrap().is_none());
    let root = reader.state().levels[0].root;
    assert_eq!(reader.prove(&absent).await.unwrap()[0].verify(&root, &absent), Ok(None));
    let present = world.top()[0];
    assert!(reader.prove(&present).await.unwrap()[0].verify(&root, &present).unwrap().is_some());

    let findings = verify(&reader, 1, true).await.unwrap();
    assert!(findings.is_well(), "{findings:?}");
    assert_eq!((findings.paths, findings.nars_checked), (all.len() as u64, all.len() as u64));

    // Publishing the same again changes nothing.
    let again = world.publish(world.source(), world.options()).await.unwrap();
    assert_eq!((again.added, again.present, again.sequence), (0, all.len(), 1));
}

/// A store that stops in the middle, and counts.
#[derive(Debug)]
struct Flaky {
    store: Arc<StoreSource>,
    dumps: AtomicUsize,
    until: usize,
}

impl NarSource for Flaky {
    fn info(&self, hash: HashPart) -> BoxFuture<'_, Result<Option<PathInfo>, DepotError>> {
        self.store.info(hash)
    }

    fn dump<'a>(
        &'a self,
        info: &'a PathInfo,
        out: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), DepotError>> {
        if self.dumps.fetch_add(1, Ordering::Relaxed) >= self.until {
            return Box::pin(async { Err(DepotError::new(Kind::Unavailable, "the line is down")) });
        }
        self.store.dump(info, out)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_publication_is_invisible_and_goes_on() {
    let world = world(60, 6 << 20);
    let flaky =
        |until| Arc::new(Flaky { store: world.source(), dumps: AtomicUsize::new(0), until });
    let total = world.store.paths.len();
    let error = world.publish(flaky(total * 2 / 3), world.options()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let state: State = world.depot.state().await.unwrap();
    assert_eq!((state.sequence, state.levels.len()), (0, 0), "nothing is visible");

    let source = flaky(usize::MAX);
    let report = world.publish(source.clone(), world.options()).await.unwrap();
    assert_eq!(report.added, total);
    assert!(report.resumed > total / 4, "{report:?}");
    assert_eq!(source.dumps.load(Ordering::Relaxed), total - report.resumed);
    world.assert_complete().await;
    let left: Vec<_> = std::fs::read_dir(world.dir.path().join("scratch")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_cut_off_only_costs_work() {
    let world = world(30, 3 << 20);
    let flaky = Arc::new(Flaky { store: world.source(), dumps: AtomicUsize::new(0), until: 25 });
    world.publish(flaky, world.options()).await.unwrap_err();
    let scratch = world.dir.path().join("scratch");
    let journal = std::fs::read_dir(&scratch)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "journal"))
        .unwrap();
    let whole = std::fs::read(&journal).unwrap();
    for len in [0, 1, 40, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&journal, &whole[..len]).unwrap();
        // As far as the next failure, with no NAR to be had.
        let none = Arc::new(Flaky { store: world.source(), dumps: AtomicUsize::new(0), until: 0 });
        assert_eq!(world.publish(none, world.options()).await.unwrap_err().kind, Kind::Unavailable);
    }
    world.publish(world.source(), world.options()).await.unwrap();
    world.assert_complete().await;
}

/// A registry to which somebody else publishes first.
#[derive(Debug)]
struct Busy {
    inner: Arc<DirDepot>,
    others: AtomicUsize,
}

impl Registry for Busy {
    fn state(&self) -> BoxFuture<'_, Result<State, DepotError>> {
        self.inner.state()
    }

    fn epoch(&self) -> BoxFuture<'_, Result<u32, DepotError>> {
        self.inner.epoch()
    }

    fn update<'a>(
        &'a self,
        expected: u64,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<u64, DepotError>> {
        Box::pin(async move {
            let more = self
                .others
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            if more.is_ok() {
                self.inner.update(expected, &Update::Beat).await?;
            }
            self.inner.update(expected, update).await
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_publishers_do_not_overwrite_each_other() {
    let world = world(20, 1 << 20);
    let source = world.source();
    let infos = closure(&*source, &world.top(), 10_000).await.unwrap();
    let busy = Arc::new(Busy { inner: world.depot.clone(), others: AtomicUsize::new(2) });
    let report = publish(world.depot.clone(), busy, source, infos, world.top(), world.options())
        .await
        .unwrap();
    assert_eq!(report.sequence, 3);
    world.assert_complete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_merge_and_dropped_paths_vanish() {
    let world = world(40, 2 << 20);
    let source = world.source();
    // One path after the other, dependencies first: many small levels, merged as they come.
    for (i, info) in world.store.paths.iter().enumerate() {
        let roots = vec![info.path.hash_part()];
        let infos = vec![info.clone()];
        let report = publish(
            world.depot.clone(),
            world.depot.clone(),
            source.clone(),
            infos,
            roots,
            world.options(),
        )
        .await
        .unwrap();
        assert_eq!(report.sequence, i as u64 + 1);
    }
    let reader = world.reader().await;
    assert!((2..=8).contains(&reader.levels().len()), "{} levels", reader.levels().len());
    world.assert_complete().await;

    let scratch = world.dir.path().join("scratch");
    let drop = world.store.paths[3].path.hash_part();
    // Without the oldest level a dropped path becomes a tombstone, with it, it is gone for good.
    let count = reader.levels().len();
    merge(&reader, &*world.depot, count - 1, HashSet::from([drop]), Some(5), scratch.clone())
        .await
        .unwrap();
    let reader = world.reader().await;
    assert_eq!(reader.levels().len(), 2);
    merge(&reader, &*world.depot, 2, HashSet::from([drop]), Some(5), scratch).await.unwrap();
    let reader = world.reader().await;
    assert_eq!(reader.levels().len(), 1);
    assert_eq!(reader.state().levels[0].leaves, world.store.paths.len() as u64 - 1);
    assert!(reader.find(&drop).await.unwrap().is_none());
    let findings = verify(&reader, 1, false).await.unwrap();
    assert_eq!(
        findings.problem_count, findings.missing_references,
        "only what needs the dropped path"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_are_added_without_packing_again() {
    let world = world(20, 1 << 20);
    world.publish(world.source(), world.options()).await.unwrap();
    let ours = key("ours-1", 9);
    let public = ours.public_key().clone();
    let none = Arc::new(Flaky { store: world.source(), dumps: AtomicUsize::new(0), until: 0 });
    let report =
        world.publish(none, Options { sign: Some(ours), ..world.options() }).await.unwrap();
    assert_eq!((report.added, report.signed), (0, world.store.paths.len()));
    let reader = world.reader().await;
    let dir = "/nix/store".parse().unwrap();
    for info in &world.store.paths {
        let found = reader.find(&info.path.hash_part()).await.unwrap().unwrap();
        let keys = [public.clone()].into_iter().collect();
        assert!(found.path.info.verified_by(&dir, &keys).is_some());
        let keys = [world.key.public_key().clone()].into_iter().collect();
        assert_eq!(
            found.path.info.verified_by(&dir, &keys).is_some(),
            info.verified_by(&dir, &keys).is_some()
        );
        reader.nar(&found).await.unwrap().write_to(&mut std::io::sink()).await.unwrap();
    }
}

/// Changes one byte of a file.
fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_byte_comes_out() {
    let world = world(30, 3 << 20);
    world.publish(world.source(), world.options()).await.unwrap();
    let reader = world.reader().await;
    let largest = world.store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    let found = reader.find(&largest.path.hash_part()).await.unwrap().unwrap();
    let extent = found.path.nar.extents[0];
    let pack = reader.pack(found.level, extent.pack).await.unwrap();
    let file = world.depot.blob_file(&redstuff::BlobId(pack.blob_id));
    let good = std::fs::read(&file).unwrap();
    for at in [0, 5, extent.length / 2, extent.length - 1] {
        damage(&file, (extent.offset + at) as usize);
        let mut stream = reader.nar(&found).await.unwrap();
        let mut got: Vec<Bytes> = Vec::new();
        let error = loop {
            match stream.next().await {
                Ok(Some(chunk)) => got.push(chunk),
                Ok(None) => panic!("a damaged NAR ended well, byte {at}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, Kind::Corrupt);
        let given: usize = got.iter().map(Bytes::len).sum();
        assert!((given as u64) < largest.nar_size, "the last bytes are held back");
        assert!(stream.next().await.unwrap().is_none(), "nothing comes after an error");
        let findings = verify(&reader, 1, true).await.unwrap();
        assert!(!findings.is_well());
        std::fs::write(&file, &good).unwrap();
    }

    // The same with the index: no answer rather than a wrong one.
    let index = world.depot.blob_file(&reader.state().levels[0].blob);
    let good = std::fs::read(&index).unwrap();
    for at in (0..good.len()).step_by(good.len() / 40 + 1) {
        damage(&index, at);
        let state = world.depot.state().await.unwrap();
        match Reader::open(world.depot.clone(), state).await {
            Err(error) => assert_eq!(error.kind, Kind::Corrupt, "byte {at}"),
            Ok(reader) => {
                for info in &world.store.paths {
                    match reader.find(&info.path.hash_part()).await {
                        Ok(found) => assert_eq!(found.unwrap().path.info, *info, "byte {at}"),
                        Err(error) => assert_eq!(error.kind, Kind::Corrupt),
                    }
                }
            }
        }
        std::fs::write(&index, &good).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_and_money_helps() {
    let world = world(20, 1 << 20);
    world.publish(world.source(), world.options()).await.unwrap();
    assert_eq!(world.depot.state().await.unwrap().levels[0].end_epoch, 6);
    world.depot.set_epoch(5).unwrap();
    let funded = fund(&world.reader().await, &*world.depot, 10).await.unwrap();
    assert_eq!((funded.end_epoch, funded.sequence), (15, 2));
    world.depot.set_epoch(14).unwrap();
    let findings = verify(&world.reader().await, 14, false).await.unwrap();
    assert!(findings.is_well(), "{findings:?}");
    assert_eq!(findings.ends.keys().copied().collect::<Vec<_>>(), [15]);
    // Too late.
    world.depot.set_epoch(15).unwrap();
    let reader = world.reader().await;
    let findings = verify(&reader, 15, false).await.unwrap();
    assert_eq!(findings.packs_gone, findings.packs);
    assert_eq!(findings.paths_gone, findings.paths);
    assert_eq!(fund(&reader, &*world.depot, 10).await.unwrap_err().kind, Kind::Missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_changed_is_not_published() {
    let world = world(20, 1 << 20);
    let info = &world.store.paths[0];
    let path = world.store.location.real_path(&info.path);
    let victim = if path.is_dir() { path.join("added") } else { path };
    let parent = victim.parent().unwrap();
    // Nix' stores are read-only, down to the directories.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _ = std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o644));
    std::fs::write(&victim, "changed").unwrap();
    let error = world.publish(world.source(), world.options()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    assert_eq!(world.depot.state().await.unwrap().sequence, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_believes_what_its_policy_allows() {
    let world = world(20, 1 << 20);
    let dir: StoreDir = "/nix/store".parse().unwrap();
    let host = Arc::new(key("this-host-1", 5));
    let source = |policy| {
        ArchiveSource::new(
            world.depot.clone(),
            world.depot.clone(),
            dir.clone(),
            policy,
            host.clone(),
        )
    };
    let top = world.top()[0];
    let all = source(Policy::All);
    assert_eq!(all.path_info(&top).await.unwrap(), None, "nothing was published yet");
    world.publish(world.source(), world.options()).await.unwrap();

    // A source that has read an older state goes on with it for a while; a new one sees everything.
    assert_eq!(all.path_info(&top).await.unwrap(), None);
    let all = source(Policy::All);
    let sample: KeySet = [world.key.public_key().clone()].into_iter().collect();
    let signed = source(Policy::Signed(sample));
    let stranger =
        source(Policy::Signed([key("stranger-1", 1).public_key().clone()].into_iter().collect()));
    let own: KeySet = [host.public_key().clone()].into_iter().collect();
    for info in &world.store.paths {
        let hash = info.path.hash_part();
        for source in [&all, &signed] {
            let told = source.path_info(&hash).await.unwrap().expect("the path is believed");
            assert!(told.verified_by(&dir, &own).is_some(), "signed for this host's Nix");
            assert_eq!(
                (&told.path, &told.references, told.nar_size),
                (&info.path, &info.references, info.nar_size)
            );
            assert!(info.signatures.iter().all(|signature| told.signatures.contains(signature)));
        }
        let fixed = info.content_address_fixes_nar_hash();
        assert_eq!(stranger.path_info(&hash).await.unwrap().is_some(), fixed);
        let (size, nar) = all.nar(&hash, &info.nar_hash).await.unwrap().expect("the NAR is there");
        let mut bytes = Vec::new();
        nar.write_to(&mut bytes).await.unwrap();
        assert_eq!(size, bytes.len() as u64);
        assert!(all.nar(&hash, &haulout_nix::NarHash::of(b"another")).await.unwrap().is_none());
        assert_eq!(stranger.nar(&hash, &info.nar_hash).await.unwrap().is_some(), fixed);
    }
    // Another store directory: not for this machine.
    let elsewhere = "/gnu/store".parse().unwrap();
    let other =
        ArchiveSource::new(world.depot.clone(), world.depot.clone(), elsewhere, Policy::All, host);
    assert_eq!(other.path_info(&top).await.unwrap_err().kind, Kind::Refused);
}

/// Only this path of the store, for so many epochs.
async fn publish_one(world: &World, at: usize, epochs: u32) -> Report {
    let hash = world.store.paths[at].path.hash_part();
    let source: Arc<dyn NarSource> = world.source();
    let infos = vec![source.info(hash).await.unwrap().unwrap()];
    let options = Options { epochs, ..world.options() };
    publish(world.depot.clone(), world.depot.clone(), source, infos, vec![hash], options)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_made_of_others_promises_what_holds_now() {
    let world = world(12, 200_000);
    publish_one(&world, 0, 2).await;
    // Paid for longer; the index goes on saying what it said on its day.
    fund(&world.reader().await, &*world.depot, 12).await.unwrap();
    world.depot.set_epoch(5).unwrap();
    let report = publish_one(&world, 1, 20).await;
    assert_eq!((report.merged, report.lost), (1, 0));
    assert_eq!(world.depot.state().await.unwrap().levels[0].end_epoch, 13, "of what it is made of");

    // Nobody paid: the archive goes on without what is gone.
    publish_one(&world, 2, 40).await;
    world.depot.set_epoch(13).unwrap();
    let gone = world.store.paths[0].path.hash_part();
    let report = publish_one(&world, 3, 20).await;
    assert_eq!((report.merged, report.lost), (1, 1), "the ended level took part");
    let reader = world.reader().await;
    assert!(reader.find(&gone).await.unwrap().is_none());
    for at in 1..4 {
        let found = reader.find(&world.store.paths[at].path.hash_part()).await.unwrap();
        assert!(found.is_some(), "{at}");
    }
    assert!(verify(&reader, 13, true).await.unwrap().problems.iter().all(|problem| {
        problem.contains("which is not in the archive") // a reference that was never published
    }));

    // What is gone is published again when it is asked for, even while the index still has it.
    world.depot.set_epoch(25).unwrap();
    let report = publish_one(&world, 1, 20).await;
    assert_eq!((report.added, report.present), (1, 0));
    let found = world.reader().await.find(&world.store.paths[1].path.hash_part()).await.unwrap();
    let mut nar = Vec::new();
    let reader = world.reader().await;
    reader.nar(&found.unwrap()).await.unwrap().write_to(&mut nar).await.unwrap();
    assert_eq!(nar.len() as u64, world.store.paths[1].nar_size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_changes_nothing_is_refused_and_one_that_does_lasts_as_long() {
    let world = world(12, 200_000);
    let scratch = world.dir.path().join("scratch");
    let reader = world.reader().await;
    let nothing = merge(&reader, &*world.depot, 0, HashSet::new(), None, scratch.clone()).await;
    assert!(nothing.unwrap_err().to_string().contains("nothing was published yet"));
    publish_one(&world, 0, 30).await;
    publish_one(&world, 1, 30).await;
    let reader = world.reader().await;
    let merge = |drop, epochs| merge(&reader, &*world.depot, 1, drop, epochs, scratch.clone());
    let error = merge(HashSet::new(), None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    let absent = HashPart::from_bytes([9; 20]);
    assert!(merge(HashSet::from([absent]), None).await.is_err(), "it is not there to be dropped");
    let drop = world.store.paths[0].path.hash_part();
    assert_eq!(merge(HashSet::from([drop]), None).await.unwrap().leaves, 1);
    assert_eq!(world.depot.state().await.unwrap().levels[0].end_epoch, 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_whose_index_is_gone_is_published_to_again() {
    let world = world(12, 200_000);
    publish_one(&world, 0, 2).await;
    publish_one(&world, 1, 9).await;
    publish_one(&world, 2, 9).await;
    let old = world.depot.state().await.unwrap();
    world.depot.set_epoch(20).unwrap();
    // Nobody stores what nobody pays for.
    for level in &old.levels {
        std::fs::remove_file(world.dir.path().join(format!("archive/blobs/{}", level.blob)))
            .unwrap();
    }
    let state = world.depot.state().await.unwrap();
    let blobs = || Arc::clone(&world.depot) as Arc<dyn Blobs>;
    assert_eq!(Reader::open(blobs(), state.clone()).await.unwrap_err().kind, Kind::Missing);
    let left = Reader::open_left(blobs(), state.clone(), 20).await.unwrap();
    assert_eq!((left.levels().len(), left.lost().len()), (0, old.levels.len()));
    assert!(!verify(&left, 20, false).await.unwrap().is_well());
    // What has not ended is never taken for lost.
    assert!(Reader::open_left(blobs(), state, 1).await.is_err());

    let report = publish_one(&world, 1, 9).await;
    assert_eq!((report.added, report.merged), (1, 0));
    let reader = world.reader().await;
    assert_eq!(reader.levels().len(), 1);
    assert!(reader.find(&world.store.paths[1].path.hash_part()).await.unwrap().is_some());
    assert!(reader.find(&world.store.paths[0].path.hash_part()).await.unwrap().is_none());
}
