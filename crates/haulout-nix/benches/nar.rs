//! How fast NARs are made, read at random and checked, and narinfos parsed and verified; with
//! `nix-store --dump` for comparison when Nix is installed.
//!
//! `cargo bench -p haulout-nix --bench nar`. The trees (364 MB) are made in the system's temporary
//! directory and read from the page cache.

#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macros; a bench may fail loudly")]

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use haulout_nix::{
    HashPart, KeySet, NarHash, NarInfo, PathInfo, SecretKey, StoreDir, StorePath,
    nar::{self, Cursor, Decoder, Layout},
};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    fs::{self, File},
    hint::black_box,
    io::{self, Read},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const PIECE_BYTES: usize = 256 << 10;

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// 20,000 files of 500 to 5,900 bytes, 64 MB together, in 200 directories.
fn many_files(root: &Path) {
    let noise = random(8192);
    for directory in 0..200 {
        let path = root.join(format!("directory-{directory:03}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..100 {
            let len = 500 + (directory * 100 + file) * 7919 % 5400;
            fs::write(path.join(format!("file-{file:02}.txt")), &noise[..len]).unwrap();
        }
    }
}

fn nix_store_dump(path: &Path, stdout: Stdio) -> Option<std::process::Child> {
    Command::new("nix-store").arg("--dump").arg(path).stdout(stdout).spawn().ok()
}

fn through_a_pipe(path: &Path, buf: &mut [u8]) {
    let mut child = nix_store_dump(path, Stdio::piped()).unwrap();
    let mut pipe = child.stdout.take().unwrap();
    while pipe.read(buf).unwrap() > 0 {}
    assert!(child.wait().unwrap().success());
}

fn dumps(group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>, path: &Path) {
    let mut buf = vec![0; PIECE_BYTES];
    group.bench_function("dump in process", |b| {
        b.iter(|| nar::dump(path, &mut io::sink()).unwrap());
    });
    group.bench_function("dump to /dev/null", |b| {
        b.iter(|| nar::dump(path, &mut File::create("/dev/null").unwrap()).unwrap());
    });
    let has_nix = nix_store_dump(path, Stdio::null()).is_some_and(|mut c| c.wait().is_ok());
    if has_nix {
        group.bench_function("nix-store --dump to /dev/null", |b| {
            b.iter(|| nix_store_dump(path, Stdio::null()).unwrap().wait().unwrap());
        });
        group.bench_function("nix-store --dump through a pipe", |b| {
            b.iter(|| through_a_pipe(path, &mut buf));
        });
    } else {
        println!("SKIPPED: nix-store does not start, nothing to compare with");
    }
    group.bench_function("scan layout", |b| b.iter(|| Layout::scan(path).unwrap()));
    let layout = Layout::scan(path).unwrap();
    println!("layout of {} nodes: {} bytes", layout.node_count(), layout.memory_bytes());
    group.bench_function("layout in sequence, 256 KiB reads", |b| {
        b.iter(|| {
            let (mut cursor, mut at) = (Cursor::default(), 0);
            while at < layout.nar_size() {
                at += layout.read_with(&mut cursor, at, &mut buf).unwrap() as u64;
            }
        });
    });
    group.bench_function("hash (SHA-256)", |b| b.iter(|| nar::hash_path(path).unwrap()));
    let mut whole = Vec::new();
    nar::dump(path, &mut whole).unwrap();
    group.bench_function("decode only", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new();
            whole.chunks(PIECE_BYTES).for_each(|piece| decoder.push(piece, &mut ()).unwrap());
            decoder.finish().unwrap();
        });
    });
    random_reads(group, &layout);
}

fn random_reads(group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>, layout: &Layout) {
    let mut buf = vec![0; 64 << 10];
    let last = layout.nar_size() - buf.len() as u64;
    group.throughput(Throughput::Bytes(buf.len() as u64));
    group.bench_function("layout at random, 64 KiB reads", |b| {
        let mut at = 0;
        b.iter(|| {
            // A step that is prime to the size visits everything.
            at = (at + 104_729 * 997) % last;
            layout.read_at(at, &mut buf).unwrap()
        });
    });
}

fn nars(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (one, many) = (dir.path().join("one"), dir.path().join("many"));
    fs::write(&one, random(300_000_000)).unwrap();
    many_files(&many);
    for (name, path) in [("one 300 MB file", one), ("20000 small files", many)] {
        let mut group = c.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(3));
        group.throughput(Throughput::Bytes(Layout::scan(&path).unwrap().nar_size()));
        dumps(&mut group, &path);
    }
}

fn narinfos(c: &mut Criterion) {
    let dir = StoreDir::default();
    let secret = SecretKey::from_seed("bench-1", [7; 32]).unwrap();
    let keys: KeySet = [secret.public_key().clone()].into_iter().collect();
    let path =
        |i: u8| StorePath::new(HashPart::from_bytes([i; 20]), "glibc-2.40-66".parse().unwrap());
    let mut info = PathInfo {
        path: path(0),
        nar_hash: NarHash::from_bytes([9; 32]),
        nar_size: 123_456,
        references: (1..6).map(path).collect(),
        deriver: Some(path(9)),
        signatures: vec![],
        ca: None,
    };
    info.signatures.push(info.sign(&dir, &secret));
    let narinfo = NarInfo::raw(info);
    let text = narinfo.to_text(&dir);
    let mut group = c.benchmark_group("narinfo with 5 references");
    group.bench_function("parse", |b| {
        b.iter(|| NarInfo::parse(black_box(text.as_bytes()), &dir).unwrap());
    });
    group.bench_function("write", |b| b.iter(|| black_box(&narinfo).to_text(&dir)));
    group.bench_function("fingerprint", |b| b.iter(|| narinfo.info.fingerprint(&dir)));
    group.bench_function("verify signature", |b| {
        b.iter(|| assert!(narinfo.info.verified_by(&dir, &keys).is_some()));
    });
}

criterion_group!(benches, narinfos, nars);
criterion_main!(benches);
