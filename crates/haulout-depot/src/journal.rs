//! What a publication has already stored, so that an interrupted one goes on where it was.
//!
//! One JSON object a line: first which archive it is for, then entries, each before the record of
//! the pack with its last byte. An entry counts when all its packs are there, so a line that was cut
//! off, or is missing at the end, only means that some NARs are packed again.

use crate::{DepotError, Kind};
use data_encoding::{BASE64, HEXLOWER};
use haulout_archive::{Entry, segment::BlobRecord};
use redstuff::BlobId;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, Seek, Write},
    path::{Path, PathBuf},
};

/// Longest line, in bytes: the longest entry in base64.
const LINE_BYTES_MAX: u64 = 6 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Archive(String),
    Entry(String),
    Pack { blob: BlobId, object: String, size: u64, end_epoch: u32 },
}

/// The journal of one archive on this machine. Only one publication at a time holds it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    packs: Vec<BlobRecord>,
    entries: BTreeMap<haulout_nix::HashPart, Entry>,
}

impl Journal {
    /// Opens the journal of an archive in `directory`, with what an earlier run left in it, unless its
    /// packs have ended by `epoch`.
    pub(crate) fn open(
        directory: &Path,
        archive: &[u8; 32],
        epoch: u32,
    ) -> Result<Self, DepotError> {
        let id = HEXLOWER.encode(archive);
        let path = directory.join(format!("publish-{}.journal", id.get(..16).unwrap_or(&id)));
        let opening = |error| DepotError::local(format_args!("open {}", path.display()), error);
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(opening)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = "another publication to this archive is running on this machine";
                return Err(DepotError::new(Kind::Conflict, message));
            }
            Err(TryLockError::Error(error)) => return Err(opening(error)),
        }
        let mut journal =
            Self { path: path.clone(), file, packs: Vec::new(), entries: BTreeMap::new() };
        let known = journal.load(&id).map_err(opening)?;
        if !known || journal.packs.iter().any(|pack| pack.end_epoch <= epoch) {
            journal.clear().map_err(opening)?;
            journal.append(&[Line::Archive(id)]).map_err(opening)?;
        }
        Ok(journal)
    }

    /// Reads the lines up to the first that is none; false when they are for another archive.
    fn load(&mut self, id: &str) -> std::io::Result<bool> {
        let mut reader = BufReader::new(&self.file);
        reader.rewind()?;
        let mut pending: Vec<Entry> = Vec::new();
        let mut first = true;
        let mut whole = 0;
        loop {
            let mut line = Vec::new();
            let read =
                std::io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            let Ok(parsed) = serde_json::from_slice::<Line>(&line) else { break };
            match parsed {
                Line::Archive(named) if first && named == id => {}
                Line::Entry(base64) if !first => {
                    let entry = BASE64
                        .decode(base64.as_bytes())
                        .ok()
                        .and_then(|bytes| Entry::decode(&bytes).ok());
                    let Some(entry) = entry else { break };
                    pending.push(entry);
                }
                Line::Pack { blob, object, size, end_epoch } if !first => {
                    let object =
                        HEXLOWER.decode(object.as_bytes()).ok().and_then(|id| id.try_into().ok());
                    let Some(object) = object else { break };
                    self.packs.push(BlobRecord { blob_id: blob.0, object, size, end_epoch });
                    self.entries.extend(pending.drain(..).map(|entry| (entry.key, entry)));
                }
                _ => return Ok(false),
            }
            first = false;
            whole += read as u64;
        }
        // What follows the last whole line is of a run that was cut off.
        self.file.set_len(whole)?;
        let packs = self.packs.len();
        self.entries.retain(|_, entry| {
            entry.as_path().is_some_and(|path| {
                path.nar.extents.iter().all(|extent| (extent.pack as usize) < packs)
            })
        });
        Ok(!first)
    }

    fn clear(&mut self) -> std::io::Result<()> {
        self.packs.clear();
        self.entries.clear();
        self.file.set_len(0)
    }

    fn append(&mut self, lines: &[Line]) -> std::io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        self.file.write_all(&text)?;
        self.file.sync_data()
    }

    /// Records a pack that was stored, with the entries whose last byte is in it.
    pub(crate) fn record(
        &mut self,
        pack: BlobRecord,
        entries: Vec<Entry>,
    ) -> Result<(), DepotError> {
        let mut lines = Vec::with_capacity(entries.len() + 1);
        for entry in &entries {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes).map_err(|error| {
                DepotError::new(
                    Kind::Refused,
                    format!("{} cannot be written into an index", entry.key),
                )
                .because(error)
            })?;
            lines.push(Line::Entry(BASE64.encode(&bytes)));
        }
        lines.push(Line::Pack {
            blob: BlobId(pack.blob_id),
            object: HEXLOWER.encode(&pack.object),
            size: pack.size,
            end_epoch: pack.end_epoch,
        });
        self.append(&lines).map_err(|error| {
            DepotError::local(format_args!("write {}", self.path.display()), error)
        })?;
        self.packs.push(pack);
        self.entries.extend(entries.into_iter().map(|entry| (entry.key, entry)));
        Ok(())
    }

    /// The packs so far; entries name them by position.
    pub(crate) fn packs(&self) -> &[BlobRecord] {
        &self.packs
    }

    /// The entries whose packs are all stored.
    pub(crate) const fn entries(&self) -> &BTreeMap<haulout_nix::HashPart, Entry> {
        &self.entries
    }

    /// Forgets everything: it has become part of the archive.
    pub(crate) fn finish(mut self) -> Result<(), DepotError> {
        // Emptied before it is removed: a publication that waits for the lock must not find it full.
        let path = self.path.clone();
        self.clear()
            .and_then(|()| std::fs::remove_file(&path))
            .map_err(|error| DepotError::local(format_args!("remove {}", path.display()), error))
    }
}
