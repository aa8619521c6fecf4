//! File trees for the NAR tests, with an encoder of their own to compare with.

#![allow(dead_code, reason = "every test file uses its part")]

use haulout_nix::nar::{Decoder, Layout, NarError, Visitor};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

/// A file tree in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    File { data: Vec<u8>, executable: bool },
    Link(Vec<u8>),
    Dir(Entries),
}

impl Tree {
    pub(crate) fn file(data: &[u8]) -> Self {
        Self::File { data: data.to_vec(), executable: false }
    }

    pub(crate) fn dir<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Dir(entries.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), v)).collect())
    }

    pub(crate) fn create(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::File { data, executable } => {
                fs::write(path, data)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            }
            Self::Link(target) => symlink(OsStr::from_bytes(target), path),
            Self::Dir(entries) => {
                fs::create_dir(path)?;
                entries
                    .iter()
                    .try_for_each(|(name, tree)| tree.create(&path.join(OsStr::from_bytes(name))))
            }
        }
    }

    /// The NAR by the plainest possible encoder.
    pub(crate) fn nar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, b"nix-archive-1");
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        put(out, b"(");
        put(out, b"type");
        match self {
            Self::File { data, executable } => {
                put(out, b"regular");
                if *executable {
                    put(out, b"executable");
                    put(out, b"");
                }
                put(out, b"contents");
                put(out, data);
            }
            Self::Link(target) => {
                put(out, b"symlink");
                put(out, b"target");
                put(out, target);
            }
            Self::Dir(entries) => {
                put(out, b"directory");
                for (name, tree) in entries {
                    put(out, b"entry");
                    put(out, b"(");
                    put(out, b"name");
                    put(out, name);
                    put(out, b"node");
                    tree.put(out);
                    put(out, b")");
                }
            }
        }
        put(out, b")");
    }
}

/// One string of the format.
pub(crate) fn put(out: &mut Vec<u8>, s: &[u8]) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s);
    out.extend_from_slice(&[0; 7][..(8 - s.len() % 8) % 8]);
}

/// A directory in a directory …, `levels` deep, with an empty file at the bottom.
pub(crate) fn nested(levels: usize) -> Tree {
    (0..levels).fold(Tree::file(b""), |tree, _| Tree::dir([("d", tree)]))
}

type Entries = BTreeMap<Vec<u8>, Tree>;

/// Builds a [`Tree`] from what a decoder tells.
#[derive(Default)]
pub(crate) struct Builder {
    open: Vec<(Vec<u8>, Entries)>,
    file: Option<(Vec<u8>, bool, Vec<u8>)>,
    pub(crate) root: Option<Tree>,
}

impl Builder {
    fn add(&mut self, name: &[u8], tree: Tree) {
        match self.open.last_mut() {
            Some((_, entries)) => assert!(entries.insert(name.to_vec(), tree).is_none()),
            None => assert!(self.root.replace(tree).is_none()),
        }
    }
}

impl Visitor for Builder {
    fn enter_directory(&mut self, name: &[u8]) -> io::Result<()> {
        self.open.push((name.to_vec(), Entries::new()));
        Ok(())
    }

    fn leave_directory(&mut self) -> io::Result<()> {
        let (name, entries) = self.open.pop().ok_or(io::ErrorKind::InvalidData)?;
        self.add(&name, Tree::Dir(entries));
        Ok(())
    }

    fn start_file(&mut self, name: &[u8], executable: bool, _size: u64) -> io::Result<()> {
        self.file = Some((name.to_vec(), executable, Vec::new()));
        Ok(())
    }

    fn file_data(&mut self, data: &[u8]) -> io::Result<()> {
        assert!(!data.is_empty());
        let (_, _, all) = self.file.as_mut().ok_or(io::ErrorKind::InvalidData)?;
        all.extend_from_slice(data);
        Ok(())
    }

    fn end_file(&mut self) -> io::Result<()> {
        let (name, executable, data) = self.file.take().ok_or(io::ErrorKind::InvalidData)?;
        self.add(&name, Tree::File { data, executable });
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.add(name, Tree::Link(target.to_vec()));
        Ok(())
    }
}

/// Decodes `nar`, handed over in pieces of `piece` bytes.
pub(crate) fn decode(nar: &[u8], piece: usize) -> Result<Tree, NarError> {
    let (mut decoder, mut builder) = (Decoder::new(), Builder::default());
    for data in nar.chunks(piece) {
        decoder.push(data, &mut builder)?;
    }
    decoder.finish()?;
    assert_eq!(decoder.offset(), nar.len() as u64);
    Ok(builder.root.unwrap_or_else(|| Tree::file(b"the decoder told nothing")))
}

/// All of a layout's NAR, read in pieces of `piece` bytes.
pub(crate) fn read_all(layout: &Layout, piece: usize) -> io::Result<Vec<u8>> {
    let (mut all, mut buf) = (Vec::new(), vec![0; piece]);
    loop {
        let got = layout.read_at(all.len() as u64, &mut buf)?;
        all.extend_from_slice(&buf[..got]);
        if got < piece {
            return Ok(all);
        }
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'e', 1 => 1u8..=b'.', 1 => b'0'..=255];
    let long = prop::collection::vec(b'x'..=b'z', 250..=255);
    prop_oneof![30 => prop::collection::vec(byte, 1..12), 1 => long]
        .prop_filter("no file can be called so", |name| name != b"." && name != b"..")
}

fn leaf() -> impl Strategy<Value = Tree> {
    let file = |size| {
        (prop::collection::vec(any::<u8>(), size), any::<bool>())
            .prop_map(|(data, executable)| Tree::File { data, executable })
    };
    let target = prop::collection::vec(1u8..=255, 1..40).prop_map(Tree::Link);
    prop_oneof![6 => file(0..40), 1 => file(0..5_000), 2 => target]
}

/// Random trees of up to some dozens of nodes.
pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(5, 40, 8, |inner| {
        prop::collection::btree_map(name(), inner, 0..8).prop_map(Tree::Dir)
    })
}
