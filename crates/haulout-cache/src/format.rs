//! What stands in the directory: names, the version, and the values of the index. See
//! `docs/cache-format.md`.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use haulout_nix::{NarHash, NarInfo, PathInfo, StoreDir};

use crate::{CachedInfo, OpenError, StoredTree, UnixTime};

/// The version this code writes and reads.
pub(crate) const VERSION: u32 = 1;
const VERSION_FILE: &str = "VERSION";
const VERSION_WORD: &str = "haulout-cache";
const VERSION_BYTES_MAX: u64 = 256;

/// Longest name of a key kept as `verified_by`.
const VERIFIED_BY_BYTES_MAX: usize = 255;

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.redb")
    }

    pub(crate) fn nars(&self) -> PathBuf {
        self.root.join("nar")
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn nar(&self, hash: &NarHash) -> PathBuf {
        self.nars().join(format!("{}.nar", hash.to_nix32()))
    }

    /// The hash a file name in `nar/` stands for.
    pub(crate) fn nar_of_name(name: &str) -> Option<NarHash> {
        NarHash::from_nix32(name.strip_suffix(".nar")?).ok()
    }

    /// Make sure the directory is a cache of our version, creating it when it does not exist or is
    /// empty.
    pub(crate) fn prepare(&self) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { dir: self.root.clone(), source };
        create_dir(&self.root).map_err(io)?;
        match read_small(&self.root.join(VERSION_FILE)) {
            Ok(text) => self.check_version(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::read_dir(&self.root)
                    .map_err(io)?
                    .any(|entry| entry.is_ok_and(|entry| !is_own_leftover(&entry)))
                {
                    return Err(OpenError::NotACache { dir: self.root.clone() });
                }
                self.write_version().map_err(io)?;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(OpenError::NotACache { dir: self.root.clone() });
            }
            Err(error) => return Err(io(error)),
        }
        create_dir(&self.nars()).map_err(io)?;
        create_dir(&self.temporary()).map_err(io)
    }

    fn check_version(&self, text: &str) -> Result<(), OpenError> {
        let found = text
            .trim_end()
            .strip_prefix(VERSION_WORD)
            .and_then(|rest| rest.trim().parse::<u32>().ok());
        match found {
            Some(VERSION) => Ok(()),
            Some(found) => {
                Err(OpenError::OtherVersion { dir: self.root.clone(), found, known: VERSION })
            }
            None => Err(OpenError::NotACache { dir: self.root.clone() }),
        }
    }

    fn write_version(&self) -> io::Result<()> {
        let temporary = self.root.join(format!("{VERSION_FILE}.new"));
        let mut file = fs::File::create(&temporary)?;
        writeln!(file, "{VERSION_WORD} {VERSION}")?;
        file.sync_all()?;
        fs::rename(temporary, self.root.join(VERSION_FILE))
    }
}

/// What a kill while the very first version file was being written leaves behind.
fn is_own_leftover(entry: &fs::DirEntry) -> bool {
    entry.file_name() == format!("{VERSION_FILE}.new").as_str()
}

fn create_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn read_small(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > VERSION_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    fs::read_to_string(path)
}

/// When a value was stored: the first eight bytes of every narinfo and tree value.
pub(crate) fn stored_at(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// stored-at (8), length of the key's name (1), the name, the canonical narinfo text.
pub(crate) fn encode_info(
    info: &PathInfo,
    verified_by: &str,
    now: UnixTime,
    dir: &StoreDir,
) -> Option<Vec<u8>> {
    if verified_by.len() > VERIFIED_BY_BYTES_MAX {
        return None;
    }
    let text = NarInfo::raw(info.clone()).to_text(dir);
    let mut value = Vec::with_capacity(9 + verified_by.len() + text.len());
    value.extend_from_slice(&now.0.to_le_bytes());
    value.push(u8::try_from(verified_by.len()).ok()?);
    value.extend_from_slice(verified_by.as_bytes());
    value.extend_from_slice(text.as_bytes());
    Some(value)
}

/// `None` for anything that is not exactly what [`encode_info`] writes.
pub(crate) fn decode_info(value: &[u8], dir: &StoreDir) -> Option<CachedInfo> {
    let (stored, rest) = value.split_first_chunk()?;
    let (&name_len, rest) = rest.split_first()?;
    let (name, text) = rest.split_at_checked(usize::from(name_len))?;
    Some(CachedInfo {
        info: NarInfo::parse(text, dir).ok()?.info,
        stored_at: UnixTime(u64::from_le_bytes(*stored)),
        verified_by: std::str::from_utf8(name).ok()?.to_owned(),
    })
}

/// stored-at (8), NAR size (8), root (32), then the groups (32 each).
pub(crate) fn encode_tree(tree: &StoredTree, now: UnixTime) -> Vec<u8> {
    let mut value = Vec::with_capacity(48 + 32 * tree.groups.len());
    value.extend_from_slice(&now.0.to_le_bytes());
    value.extend_from_slice(&tree.nar_size.to_le_bytes());
    value.extend_from_slice(&tree.root);
    value.extend(tree.groups.iter().flatten());
    value
}

/// `None` for a value of the wrong shape.
pub(crate) fn decode_tree(value: &[u8]) -> Option<StoredTree> {
    let (_, rest) = value.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (root, rest) = rest.split_first_chunk()?;
    let (groups, odd) = rest.as_chunks();
    odd.is_empty().then(|| StoredTree {
        nar_size: u64::from_le_bytes(*size),
        root: *root,
        groups: groups.to_vec(),
    })
}
