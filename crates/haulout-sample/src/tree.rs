//! The files of one path.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};

use crate::content::{Content, Kind};
use crate::plan::Shape;
use crate::rng::Rng;

/// Nix gives every file in a store this time, seconds since 1970.
const STORE_TIME: Timestamps = {
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    Timestamps { last_access: second, last_modification: second }
};
const READ_ONLY: u32 = 0o444;
const READ_EXECUTE: u32 = 0o555;

#[derive(Debug)]
pub(crate) enum Node {
    File { executable: bool, head: Vec<u8>, kind: Kind, body: u64 },
    Link(String),
    Directory(BTreeMap<String, Self>),
}

impl Node {
    fn file(executable: bool, head: Vec<u8>, kind: Kind, body: u64) -> Self {
        Self::File { executable, head, kind, body }
    }

    /// Puts a node at a relative path, making directories. A place that is
    /// taken stays as it is.
    fn put(&mut self, path: &str, node: Self) {
        let Self::Directory(entries) = self else { return };
        match path.split_once('/') {
            None => drop(entries.entry(path.to_owned()).or_insert(node)),
            Some((name, rest)) => entries
                .entry(name.to_owned())
                .or_insert_with(|| Self::Directory(BTreeMap::new()))
                .put(rest, node),
        }
    }
}

/// The tree of a path. `references` are full store paths, the path's own among
/// them if it refers to itself: each occurs in the contents, so that a scan
/// for hash parts as Nix does it after a build finds exactly these.
pub(crate) fn tree(
    name: &str,
    shape: Shape,
    bytes: u64,
    references: &[String],
    rng: &mut Rng,
) -> Node {
    let mut note = Vec::new();
    for reference in references {
        note.extend_from_slice(reference.as_bytes());
        note.push(b'\n');
    }
    match shape {
        Shape::Unit => unit(name, bytes, references, rng),
        Shape::BigFile => {
            let mut root = with_note(note);
            root.put("share/blob.bin", Node::file(false, Vec::new(), Kind::Code, bytes));
            root
        }
        Shape::ManyFiles(files) => {
            let mut root = with_note(note);
            for index in 0..files {
                let bytes = bytes / files as u64 + rng.below(300) as u64;
                let path = format!("share/d{}/e{}/f{index}.txt", index % 23, index % 7);
                root.put(&path, Node::file(false, Vec::new(), Kind::Text, bytes));
            }
            root
        }
        Shape::Package => package(bytes, references, note, rng),
    }
}

fn with_note(note: Vec<u8>) -> Node {
    let mut root = Node::Directory(BTreeMap::new());
    if !note.is_empty() {
        let node = Node::file(false, note, Kind::Text, 0);
        root.put("nix-support/propagated-build-inputs", node);
    }
    root
}

fn unit(name: &str, bytes: u64, references: &[String], rng: &mut Rng) -> Node {
    let mut head = format!("# {name}\n").into_bytes();
    for reference in references {
        head.extend_from_slice(format!("ExecStart={reference}/bin/run\n").as_bytes());
    }
    let body = bytes.saturating_sub(head.len() as u64);
    let file = Node::file(rng.chance(0.3), head, Kind::Text, body);
    if rng.chance(0.5) {
        return file;
    }
    let mut root = Node::Directory(BTreeMap::new());
    root.put(&format!("etc/{name}"), file);
    if let Some(first) = references.first() {
        root.put("run", Node::Link(format!("{first}/bin/run")));
    }
    root
}

fn package(bytes: u64, references: &[String], note: Vec<u8>, rng: &mut Rng) -> Node {
    let mut root = with_note(note);
    let files = 1 + rng.below(24).min(bytes as usize / 600);
    // Shares of very different size.
    let shares: Vec<u64> = (0..files).map(|_| rng.log_normal(6.0, 1.8).max(1)).collect();
    let all: u64 = shares.iter().sum();
    for (index, share) in shares.iter().enumerate() {
        let size = (u128::from(bytes) * u128::from(*share) / u128::from(all)) as u64;
        let pick = rng.unit();
        let (path, kind, executable) = match pick {
            _ if pick < 0.35 => (format!("lib/lib{index}.so"), Kind::Code, true),
            _ if pick < 0.50 => (format!("bin/tool{index}"), Kind::Code, true),
            _ if pick < 0.80 => (format!("share/doc/d{index}/README"), Kind::Text, false),
            _ => (format!("share/img/{index}.png"), Kind::Noise, false),
        };
        // Programs name the libraries they use, as a run path does.
        let mut head = Vec::new();
        if executable && !references.is_empty() {
            let reference = &references[rng.below(references.len())];
            head = format!("\u{7f}ELF\0{reference}/lib\0").into_bytes();
        }
        root.put(&path, Node::file(executable, head, kind, size));
        if pick < 0.12 {
            root.put(&format!("lib/lib{index}.so.1"), Node::Link(format!("lib{index}.so")));
        }
    }
    root
}

/// Writes a tree, with the modes and times that Nix gives to what is in a
/// store.
pub(crate) fn write(node: &Node, at: &Path, content: &Content, rng: &mut Rng) -> io::Result<()> {
    match node {
        Node::File { executable, head, kind, body } => {
            let file = OpenOptions::new().write(true).create_new(true).open(at)?;
            let mut out = BufWriter::with_capacity(1, &file);
            if *body < 4096 {
                out = BufWriter::with_capacity(8192, &file);
            }
            out.write_all(head)?;
            content.write(*kind, rng, *body, &mut out)?;
            out.flush()?;
            drop(out);
            seal_file(&file, *executable)
        }
        Node::Link(target) => {
            std::os::unix::fs::symlink(target, at)?;
            seal_time(at)
        }
        Node::Directory(entries) => {
            std::fs::create_dir(at)?;
            for (name, node) in entries {
                write(node, &at.join(name), content, rng)?;
            }
            seal_directory(at)
        }
    }
}

fn seal_file(file: &File, executable: bool) -> io::Result<()> {
    let mode = if executable { READ_EXECUTE } else { READ_ONLY };
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    Ok(rustix::fs::futimens(file, &STORE_TIME)?)
}

fn seal_directory(at: &Path) -> io::Result<()> {
    rustix::fs::chmod(at, Mode::from_raw_mode(READ_EXECUTE))?;
    seal_time(at)
}

fn seal_time(at: &Path) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, at, &STORE_TIME, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives everything below `at` the modes and times of a store.
pub(crate) fn seal(at: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(at)?;
    if meta.is_symlink() {
        return seal_time(at);
    }
    if meta.is_dir() {
        for entry in std::fs::read_dir(at)? {
            seal(&entry?.path())?;
        }
        return seal_directory(at);
    }
    use std::os::unix::fs::PermissionsExt;
    let executable = meta.permissions().mode() & 0o100 != 0;
    let mode = if executable { READ_EXECUTE } else { READ_ONLY };
    rustix::fs::chmod(at, Mode::from_raw_mode(mode))?;
    seal_time(at)
}

/// Deletes a tree of a store, whose directories nobody may write to. Nothing
/// there is no error.
pub(crate) fn delete(at: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    if !meta.is_dir() {
        return std::fs::remove_file(at);
    }
    rustix::fs::chmod(at, Mode::RWXU)?;
    for entry in std::fs::read_dir(at)? {
        delete(&entry?.path())?;
    }
    std::fs::remove_dir(at)
}
