//! Where the parts of a Nix store lie on this machine.

use std::path::{Path, PathBuf};

use crate::{StoreDir, StorePath};

/// The places that belong to one Nix store.
///
/// Paths *inside* the store always speak of the logical [`StoreDir`]; only
/// opening files needs to know where it really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLocation {
    /// The logical store directory, what store paths begin with.
    pub store_dir: StoreDir,
    /// The directory that holds the files.
    pub real_store: PathBuf,
    /// The SQLite database; the file `schema` lies beside it.
    pub db: PathBuf,
    /// Build logs: `<log_dir>/ab/cdef...-name.drv[.bz2]`.
    pub log_dir: PathBuf,
}

impl StoreLocation {
    /// The store of this machine: `/nix/store` and `/nix/var`.
    pub fn system() -> Self {
        Self::chroot(Path::new("/"))
    }

    /// The store that Nix calls `local?root=<root>`: its paths still read
    /// `/nix/store/...`, its files are below `root`.
    pub fn chroot(root: &Path) -> Self {
        Self {
            store_dir: StoreDir::default(),
            real_store: root.join("nix/store"),
            db: root.join("nix/var/nix/db/db.sqlite"),
            log_dir: root.join("nix/var/log/nix/drvs"),
        }
    }

    /// Understands the `store` setting of Nix as far as it names a store on
    /// this machine: `auto`, `daemon`, `local`, `local?root=DIR`, and a bare
    /// absolute path. Anything else (`ssh://...`, other parameters) is `None`.
    pub fn from_setting(setting: &str) -> Option<Self> {
        match setting {
            "" | "auto" | "daemon" | "local" => Some(Self::system()),
            _ => {
                let root = setting.strip_prefix("local?root=").unwrap_or(setting);
                let plain = root.starts_with('/') && !root.contains(['?', '&', '%', '#']);
                plain.then(|| Self::chroot(Path::new(root)))
            }
        }
    }

    /// The file or directory behind a store path.
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.real_store.join(path.to_string())
    }

    /// Where the log of building `drv` would be, and whether that one is
    /// compressed with bzip2: the likelier place first. Nix puts the first two
    /// characters of the base name into a directory name.
    pub fn build_logs(&self, drv: &StorePath) -> [(PathBuf, bool); 2] {
        let base = drv.to_string();
        // A base name starts with 32 ASCII characters.
        let (head, tail) = base.split_at(2);
        let dir = self.log_dir.join(head);
        [(dir.join(format!("{tail}.bz2")), true), (dir.join(tail), false)]
    }

    /// The file with the number of the database's schema.
    pub(super) fn schema_file(&self) -> PathBuf {
        self.db.with_file_name("schema")
    }

    /// A file SQLite keeps beside the database (`-wal`, `-shm`).
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.db.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }
}
