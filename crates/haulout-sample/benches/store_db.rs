//! Reading the database of a large store: all rows, one path, and following.
//! `cargo bench -p haulout-sample --bench store_db`

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use haulout_nix::db::{Database, Follower};
use haulout_nix::{HashPart, NarHash, PathInfo, SecretKey, StoreDir, StorePath};
use haulout_sample::{create_empty, register_all};

const PATHS: u32 = 50_000;

fn path(n: u32) -> StorePath {
    let digest = NarHash::of(&n.to_le_bytes());
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&digest.as_bytes()[..20]);
    let name = format!("some-package-of-usual-length-{n}").parse().unwrap();
    StorePath::new(HashPart::from_bytes(bytes), name)
}

fn info(n: u32, key: &SecretKey) -> PathInfo {
    let mut info = PathInfo {
        path: path(n),
        nar_hash: NarHash::of(&n.to_be_bytes()),
        nar_size: 1000 + u64::from(n),
        references: (1..=5).filter_map(|step| n.checked_sub(step * step)).map(path).collect(),
        deriver: Some(path(n + PATHS)),
        signatures: Vec::new(),
        ca: None,
    };
    info.normalise();
    info.signatures.push(info.sign(&StoreDir::default(), key));
    info
}

fn store_db(criterion: &mut Criterion) {
    let root = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed("cache.example.org-1", [1; 32]).unwrap();
    let location = create_empty(root.path()).unwrap();
    let infos: Vec<_> = (0..PATHS).map(|n| info(n, &key)).collect();
    register_all(&location, &infos).unwrap();
    // A live writer, as on a machine at work.
    let writer = rusqlite::Connection::open(&location.db).unwrap();
    let touch = || {
        let sql = "update ValidPaths set ultimate = 1 - ifnull(ultimate, 0) where id = 1";
        writer.execute(sql, []).unwrap();
    };
    touch();
    let database = Arc::new(Database::open(&location).unwrap());
    println!("reading: {:?}", database.access().unwrap());

    criterion.bench_function("load 50,000 rows", |bench| {
        bench.iter(|| database.load().unwrap().unwrap().rows.len());
    });
    let mut n = 0;
    criterion.bench_function("path_info", |bench| {
        bench.iter(|| {
            n = (n + 7919) % PATHS;
            black_box(database.path_info(&infos[n as usize].path.hash_part()).unwrap().unwrap())
        });
    });
    criterion.bench_function("path_info, nothing open", |bench| {
        bench.iter(|| {
            n = (n + 7919) % PATHS;
            database.release_idle(std::time::Duration::ZERO);
            black_box(database.path_info(&infos[n as usize].path.hash_part()).unwrap().unwrap())
        });
    });
    criterion.bench_function("path_info of what is not there", |bench| {
        bench.iter(|| {
            n = (n + 7919) % PATHS;
            black_box(database.path_info(&path(n + 2 * PATHS).hash_part()).unwrap())
        });
    });
    let mut follower = Follower::new(Arc::clone(&database));
    follower.poll().unwrap();
    criterion.bench_function("poll after a change", |bench| {
        bench.iter(|| {
            touch();
            follower.poll().unwrap()
        });
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    (0..10).for_each(|_| drop(follower.poll().unwrap()));
    criterion.bench_function("poll without a change", |bench| {
        bench.iter(|| follower.poll().unwrap());
    });
}

criterion_group!(benches, store_db);
criterion_main!(benches);
