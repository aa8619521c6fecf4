//! Packs in the making.

use super::Options;
use crate::{DepotError, Kind, NarSource};
use haulout_archive::{
    Entry, Extent,
    pack::{NarCompressor, Planner},
};
use haulout_nix::PathInfo;
use std::{
    fs::File,
    io::{self, BufWriter, Seek, Write},
    path::PathBuf,
};
use tokio::runtime::Handle;

/// A pack that is complete, in a file.
pub(super) struct ClosedPack {
    pub(super) file: PathBuf,
    pub(super) size: u64,
    /// Those whose last byte is in it.
    pub(super) entries: Vec<Entry>,
}

/// A compressed NAR in a temporary file.
pub(super) struct Spooled {
    file: File,
    pub(super) length: u64,
    pub(super) root: [u8; 32],
}

/// Puts NARs into pack files.
pub(super) struct Packer {
    scratch: PathBuf,
    level: i32,
    planner: Planner,
    /// What is added to the planner's pack numbers: packs of earlier runs come first.
    base: u32,
    current: Option<Open>,
    full: Vec<Open>,
    /// Entries whose last byte is in the current pack.
    pub(super) pending: Vec<Entry>,
}

/// A pack that is being written.
struct Open {
    number: u32,
    path: PathBuf,
    out: BufWriter<File>,
    size: u64,
    entries: Vec<Entry>,
}

impl Packer {
    pub(super) fn new(options: &Options, max: u64, base: usize) -> Self {
        Self {
            scratch: options.scratch.clone(),
            level: options.level,
            planner: Planner::new(options.pack_bytes, max),
            base: base as u32,
            current: None,
            full: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Compresses a NAR and checks that it is the one that its info promises.
    pub(super) fn compress(
        &self,
        handle: &Handle,
        source: &dyn NarSource,
        info: &PathInfo,
    ) -> Result<Spooled, DepotError> {
        let spool = || tempfile::tempfile_in(&self.scratch);
        let packing = |error| DepotError::local(format_args!("pack {}", info.path), error);
        let out = BufWriter::with_capacity(1 << 20, spool().map_err(packing)?);
        let mut compressor = NarCompressor::new(out, info.nar_size, self.level).map_err(packing)?;
        handle.block_on(source.dump(info, &mut compressor))?;
        let changed = || {
            let message = format!("the content of {} is not what its hash says", info.path);
            DepotError::new(Kind::Corrupt, message)
        };
        let (compressed, out) = compressor.finish().map_err(|error| changed().because(error))?;
        if (compressed.digest.hash, compressed.digest.size) != (info.nar_hash, info.nar_size) {
            return Err(changed());
        }
        let mut file = out.into_inner().map_err(|error| packing(error.into_error()))?;
        file.rewind().map_err(packing)?;
        Ok(Spooled { file, length: compressed.length, root: compressed.root })
    }

    /// Appends a NAR to the pack, or packs, where it belongs: gives where that is.
    pub(super) fn append(&mut self, nar: &Spooled) -> Result<Vec<Extent>, DepotError> {
        let writing = |error| DepotError::local("write a pack", error);
        let mut extents = self.planner.place(nar.length).map_err(|error| {
            DepotError::new(Kind::Refused, "a NAR cannot be packed").because(error)
        })?;
        let mut input = &nar.file;
        for extent in &mut extents {
            extent.pack += self.base;
            if self.current.as_ref().is_none_or(|open| open.number != extent.pack) {
                self.turn(extent.pack)?;
            }
            if let Some(open) = &mut self.current {
                let copied =
                    io::copy(&mut io::Read::take(&mut input, extent.length), &mut open.out)
                        .map_err(writing)?;
                if copied != extent.length {
                    return Err(writing(io::ErrorKind::UnexpectedEof.into()));
                }
                open.size += copied;
            }
        }
        Ok(extents)
    }

    /// Closes the current pack and opens the next.
    fn turn(&mut self, number: u32) -> Result<(), DepotError> {
        self.shelve();
        let path = self.scratch.join(format!("pack-{number}.part"));
        let file = File::create(&path)
            .map_err(|error| DepotError::local(format_args!("make {}", path.display()), error))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        self.current = Some(Open { number, path, out, size: 0, entries: Vec::new() });
        Ok(())
    }

    fn shelve(&mut self) {
        if let Some(mut open) = self.current.take() {
            open.entries = std::mem::take(&mut self.pending);
            self.full.push(open);
        }
    }

    /// The packs that were completed since the last call.
    pub(super) fn closed(&mut self) -> Vec<Result<ClosedPack, DepotError>> {
        self.full.drain(..).map(close).collect()
    }

    /// The last pack.
    pub(super) fn finish(&mut self) -> Result<Option<ClosedPack>, DepotError> {
        self.shelve();
        self.full.pop().map(close).transpose()
    }
}

fn close(mut open: Open) -> Result<ClosedPack, DepotError> {
    open.out.flush().map_err(|error| DepotError::local("write a pack", error))?;
    Ok(ClosedPack { file: open.path, size: open.size, entries: open.entries })
}
