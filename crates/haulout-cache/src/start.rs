//! Opening: the lock, the index, and bringing the books in line with the files.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use haulout_nix::NarHash;

use crate::{
    OpenError, UnixTime,
    faults::Disk,
    format::Layout,
    index::{self, Index, NarRow, OpenFailure},
    state::{Held, NARS_MAX, State},
};

/// Take the directory for this process; held as long as the file is open.
pub(crate) fn lock(layout: &Layout) -> Result<File, OpenError> {
    let dir = layout.root.clone();
    let file = File::options().write(true).create(true).truncate(false).open(dir.join("LOCK"));
    let file = file.map_err(|source| OpenError::Io { dir: dir.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { dir, source }),
    }
}

/// Remove the files somebody was still writing when the last process ended.
pub(crate) fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let _ = fs::remove_file(entry?.path());
    }
    Ok(())
}

/// Open the index, setting aside one that cannot be read; what happened is noted in `state`.
pub(crate) fn open_index(
    layout: &Layout,
    disk: &Disk,
    state: &mut State,
    now: UnixTime,
) -> Option<Index> {
    let path = layout.index();
    let mut opened = Index::open(&path, disk.clone());
    if let Err(OpenFailure::Unreadable(reason)) = &opened {
        tracing::warn!(%reason, "cache index unreadable; set aside");
        state.warnings.push(format!("the cache index could not be read ({reason}) and was begun anew; the old one is index.redb.unreadable"));
        opened = match index::set_aside(&path) {
            Ok(()) => Index::open(&path, disk.clone()),
            Err(error) => Err(OpenFailure::Disk(error.to_string())),
        };
    }
    match opened {
        Ok(index) => Some(index),
        Err(OpenFailure::Disk(reason) | OpenFailure::Unreadable(reason)) => {
            state.pause(format!("cannot open the cache index: {reason}"), now);
            None
        }
    }
}

/// Bring the books in line with the files: a file the index does not know is adopted (its name says
/// what it must hash to, and it will be hashed before it is served), one of another size is
/// removed, a row without a file goes.
pub(crate) fn reconcile(
    layout: &Layout,
    believed: &HashMap<NarHash, NarRow>,
    state: &mut State,
    now: UnixTime,
) -> io::Result<()> {
    for entry in fs::read_dir(layout.nars())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(hash) = name.to_str().and_then(Layout::nar_of_name) else {
            continue;
        };
        let Ok(meta) = entry.metadata() else { continue };
        let row = match believed.get(&hash) {
            Some(row) => *row,
            None => NarRow { size: meta.len(), last_use: now, holders: 0 },
        };
        if !meta.is_file() || meta.len() != row.size || state.nars.len() >= NARS_MAX {
            let _ = fs::remove_file(entry.path());
            continue;
        }
        state.insert(hash, Held { row, checked: false });
    }
    // Only the differences need writing.
    state.pending.nars.retain(|hash, row| believed.get(hash) != row.as_ref());
    let gone = believed.keys().filter(|hash| !state.nars.contains_key(*hash));
    state.pending.nars.extend(gone.map(|hash| (*hash, None)));
    Ok(())
}
