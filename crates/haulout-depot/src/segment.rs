//! Writing a segment to files and storing them.

use crate::{Blobs, Certify, DepotError, NewLevel};
use haulout_archive::{
    Entry, FormatError,
    segment::{BlobRecord, PartRecord, SegmentWriter, page_shift_for},
};
use std::{
    io::{self, BufWriter, Write},
    path::Path,
};
use tokio::runtime::Handle;

/// Largest part of an index, in bytes, unless the network takes less: as large as a pack.
const PART_BYTES_MAX: u64 = 128 << 20;

/// A file of pages.
struct Part {
    out: BufWriter<tempfile::NamedTempFile>,
    bytes: u64,
    pages: u32,
}

/// Writes a segment of sorted entries and stores it for `epochs` epochs. Runs on a thread that may block.
///
/// `packs` is called when all entries were taken.
pub(crate) fn write_and_store(
    handle: &Handle,
    blobs: &dyn Blobs,
    scratch: &Path,
    epochs: u32,
    about: u64,
    entries: impl Iterator<Item = Result<Entry, DepotError>>,
    packs: impl FnOnce() -> Vec<BlobRecord>,
) -> Result<Option<NewLevel>, DepotError> {
    let max = handle.block_on(blobs.blob_bytes_max())?.min(PART_BYTES_MAX);
    let mut writer = SegmentWriter::new(page_shift_for(about));
    let mut parts = vec![part(scratch)?];
    for entry in entries {
        if let Some(page) = writer.push(&entry?).map_err(refused)? {
            put(&mut parts, &page, max, scratch)?;
        }
    }
    if let Some(page) = writer.last_page().map_err(refused)? {
        put(&mut parts, &page, max, scratch)?;
    }
    if writer.is_empty() {
        return Ok(None);
    }
    let leaves = writer.len();
    let packs = packs();
    // Room for the directory: 60 bytes a page, and the pack table.
    let rest = writer.pages() as u64 * 60 + packs.len() as u64 * 80 + 1024;
    let mut records = Vec::new();
    let alone = parts.len() == 1 && parts.first().is_some_and(|part| part.bytes + rest <= max);
    let mut root_part = if alone { parts.pop() } else { Some(part(scratch)?) };
    let mut end_epoch = packs.iter().map(|pack| pack.end_epoch).min().unwrap_or(u32::MAX);
    for part in parts {
        let (bytes, pages) = (part.bytes, part.pages);
        let file = close(part)?;
        let stored = handle.block_on(blobs.store(file.path(), epochs, Certify::Now))?;
        end_epoch = end_epoch.min(stored.end_epoch);
        let blob = BlobRecord {
            blob_id: stored.blob.0,
            object: stored.object,
            size: bytes,
            end_epoch: stored.end_epoch,
        };
        records.push(PartRecord { blob, pages });
    }
    let (tail, footer) = writer.finish(packs, &records).map_err(refused)?;
    let mut root = root_part.take().map_or_else(|| part(scratch), Ok)?;
    root.out.write_all(&tail).map_err(writing)?;
    let size = root.bytes + tail.len() as u64;
    let file = close(root)?;
    let stored = handle.block_on(blobs.store(file.path(), epochs, Certify::WithUpdate))?;
    let end_epoch = end_epoch.min(stored.end_epoch);
    Ok(Some(NewLevel { root: footer.root(), leaves, stored, size, end_epoch }))
}

fn put(parts: &mut Vec<Part>, page: &[u8], max: u64, scratch: &Path) -> Result<(), DepotError> {
    if parts.last().is_none_or(|part| part.bytes > 0 && part.bytes + page.len() as u64 > max) {
        parts.push(part(scratch)?);
    }
    if let Some(part) = parts.last_mut() {
        part.out.write_all(page).map_err(writing)?;
        part.bytes += page.len() as u64;
        part.pages += 1;
    }
    Ok(())
}

fn part(scratch: &Path) -> Result<Part, DepotError> {
    let file = tempfile::NamedTempFile::new_in(scratch).map_err(writing)?;
    Ok(Part { out: BufWriter::new(file), bytes: 0, pages: 0 })
}

fn close(part: Part) -> Result<tempfile::NamedTempFile, DepotError> {
    part.out.into_inner().map_err(|error| writing(error.into_error()))
}

fn writing(error: io::Error) -> DepotError {
    DepotError::local("write an index to the scratch directory", error)
}

fn refused(error: FormatError) -> DepotError {
    DepotError::new(crate::Kind::Refused, "this cannot be written into an index").because(error)
}
