//! Small files that are either the old or the new ones, whenever the power goes.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Replaces a file's content: written beside it, synced, renamed.
///
/// # Errors
/// The directory is not writable, or the disk is full; the old file is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = directory.join(name);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // What could not be finished is nobody's; if it cannot be removed either, the
        // error below says why.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(directory)?.sync_all()
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is larger.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > limit => {
            Err(io::Error::other(format!("{} bytes; at most {limit} are expected", metadata.len())))
        }
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
