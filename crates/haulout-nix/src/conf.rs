//! The parts of `nix.conf` that an agent beside Nix needs to agree with it:
//! which keys are trusted, which substituters stand behind us, which store is
//! meant.
//!
//! Nix stops at a broken configuration file. An agent must not: whatever is
//! wrong becomes a line in [`NixConf::warnings`] and the rest still counts.
//!
//! Only the system's file and `NIX_CONFIG` are read. The files of single users
//! may not add trusted keys for the daemon, so they say nothing about what a
//! machine trusts.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{KeySet, PublicKey};

/// The key every Nix trusts until told otherwise.
pub const DEFAULT_PUBLIC_KEY: &str =
    "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
/// The substituter every Nix asks until told otherwise.
pub const DEFAULT_SUBSTITUTER: &str = "https://cache.nixos.org/";
/// Where Nix looks for `nix.conf` when `NIX_CONF_DIR` is not set.
pub const DEFAULT_CONF_DIR: &str = "/etc/nix";

/// Largest configuration file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How deep files may include one another. Also what ends an include cycle.
const INCLUDE_DEPTH_MAX: usize = 8;
/// How many files one load may read.
const FILES_MAX: usize = 64;
/// Items kept of one list setting (keys, substituters, ...).
const LIST_ITEMS_MAX: usize = 1024;
/// Warnings kept; the files may hold a million bad lines.
const WARNINGS_MAX: usize = 64;
/// Characters of a bad line or value that a warning repeats.
const QUOTE_CHARS_MAX: usize = 60;

/// What `nix.conf` says, with Nix's defaults where it says nothing.
#[derive(Debug, Clone)]
pub struct NixConf {
    /// `trusted-public-keys` and `extra-trusted-public-keys`.
    pub trusted_public_keys: KeySet,
    /// `substituters` and `extra-substituters`, as written, in order.
    pub substituters: Vec<String>,
    /// `require-sigs`. False means that Nix here accepts unsigned paths; it is
    /// for reporting only, we never do.
    pub require_sigs: bool,
    /// `store`, as written; `auto` when unset.
    pub store: String,
    /// `secret-key-files`: the keys this machine signs its own builds with.
    /// Only the names, nothing is opened.
    pub secret_key_files: Vec<PathBuf>,
    /// What could not be used, in order of appearance.
    pub warnings: Vec<Warning>,
}

/// Something in the configuration that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, or `NIX_CONFIG`.
    pub place: String,
    /// Line number from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            n => write!(f, "{}:{n}: {}", self.place, self.what),
        }
    }
}

impl Default for NixConf {
    /// The configuration of a machine without any `nix.conf`.
    fn default() -> Self {
        Reader::default().finish()
    }
}

impl NixConf {
    /// Reads what the Nix of this machine would: `NIX_CONF_DIR` or `/etc/nix`,
    /// then the text in `NIX_CONFIG`. A machine without Nix gives the defaults.
    pub fn load() -> Self {
        let dir = std::env::var_os("NIX_CONF_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_CONF_DIR), PathBuf::from);
        let text = std::env::var_os("NIX_CONFIG");
        Self::load_from(&dir, text.map(|t| t.to_string_lossy().into_owned()).as_deref())
    }

    /// Reads `<dir>/nix.conf`, which may be absent, and then `text` as if it
    /// were the content of `NIX_CONFIG`.
    pub fn load_from(dir: &Path, text: Option<&str>) -> Self {
        let mut reader = Reader::default();
        let file = dir.join("nix.conf");
        match read_bounded(&file) {
            Ok(content) => reader.text(&content, &Place::File(&file), 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => reader.warn(&Place::File(&file), 0, format!("not read: {error}")),
        }
        if let Some(text) = text {
            reader.text(text, &Place::Environment, 0);
        }
        reader.finish()
    }
}

/// Where a line comes from; decides what a relative include is relative to.
enum Place<'a> {
    File(&'a Path),
    Environment,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment => f.write_str("NIX_CONFIG"),
        }
    }
}

/// Settings as they stand while the files are read. Lists keep where each item
/// was written, so that a bad key is reported with its line.
struct Reader {
    keys: Vec<Item>,
    substituters: Vec<Item>,
    secret_key_files: Vec<Item>,
    require_sigs: bool,
    store: String,
    files: usize,
    warnings: Vec<Warning>,
}

struct Item {
    text: String,
    place: String,
    line: usize,
}

impl Default for Reader {
    fn default() -> Self {
        let preset = |text: &str| {
            vec![Item { text: text.to_owned(), place: "the default".to_owned(), line: 0 }]
        };
        Self {
            keys: preset(DEFAULT_PUBLIC_KEY),
            substituters: preset(DEFAULT_SUBSTITUTER),
            secret_key_files: Vec::new(),
            require_sigs: true,
            store: "auto".to_owned(),
            files: 0,
            warnings: Vec::new(),
        }
    }
}

impl Reader {
    fn warn(&mut self, place: &Place<'_>, line: usize, what: String) {
        self.warn_at(place.to_string(), line, what);
    }

    fn warn_at(&mut self, place: String, line: usize, what: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning { place, line, what });
        }
    }

    /// Applies one file's text. `depth` counts the includes above it.
    fn text(&mut self, text: &str, place: &Place<'_>, depth: usize) {
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            // Nix cuts at the first '#' wherever it stands; there is no quoting.
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(name) = words.next() else { continue };
            match (name, words.next()) {
                ("include" | "!include", Some(target)) if words.next().is_none() => {
                    self.include(target, name == "!include", place, number, depth);
                }
                (_, Some("=")) => self.setting(name, words, place, number),
                _ => self.warn(place, number, format!("not a setting: {}", quote(line.trim()))),
            }
        }
    }

    fn include(
        &mut self,
        target: &str,
        optional: bool,
        place: &Place<'_>,
        line: usize,
        depth: usize,
    ) {
        let path = match place {
            Place::File(file) => file.parent().unwrap_or_else(|| Path::new("/")).join(target),
            Place::Environment => PathBuf::from(target),
        };
        if depth >= INCLUDE_DEPTH_MAX {
            let what =
                format!("include of {} is more than {INCLUDE_DEPTH_MAX} deep", path.display());
            return self.warn(place, line, what);
        }
        if self.files >= FILES_MAX {
            return self.warn(place, line, format!("more than {FILES_MAX} files included"));
        }
        self.files += 1;
        match read_bounded(&path) {
            Ok(content) => self.text(&content, &Place::File(&path), depth + 1),
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.warn(place, line, format!("include of {} not read: {error}", path.display()));
            }
        }
    }

    /// Applies `name = words...`. Names that do not concern us are passed over:
    /// judging them is Nix's business.
    fn setting<'t>(
        &mut self,
        name: &str,
        words: impl Iterator<Item = &'t str>,
        place: &Place<'_>,
        line: usize,
    ) {
        let (base, extra) = match name.strip_prefix("extra-") {
            Some(base) => (base, true),
            None => (name, false),
        };
        // The second name of each is from before Nix 2.0 and still accepted.
        let list = match base {
            "trusted-public-keys" | "binary-cache-public-keys" => &mut self.keys,
            "substituters" | "binary-caches" => &mut self.substituters,
            "secret-key-files" => &mut self.secret_key_files,
            "require-sigs" | "store" if !extra => return self.scalar(name, words, place, line),
            _ => return,
        };
        if !extra {
            list.clear();
        }
        let mut cut = false;
        for word in words {
            if list.len() >= LIST_ITEMS_MAX {
                cut = true;
                break;
            }
            list.push(Item { text: word.to_owned(), place: place.to_string(), line });
        }
        if cut {
            self.warn(
                place,
                line,
                format!("{name}: only the first {LIST_ITEMS_MAX} items are used"),
            );
        }
    }

    fn scalar<'t>(
        &mut self,
        name: &str,
        words: impl Iterator<Item = &'t str>,
        place: &Place<'_>,
        line: usize,
    ) {
        let value = words.collect::<Vec<_>>().join(" ");
        match (name, value.as_str()) {
            ("store", "") => self.warn(place, line, "store: no value".to_owned()),
            ("store", _) => self.store = value,
            (_, "true" | "yes" | "1") => self.require_sigs = true,
            (_, "false" | "no" | "0") => self.require_sigs = false,
            _ => self.warn(
                place,
                line,
                format!("{name}: {} is neither true nor false", quote(&value)),
            ),
        }
    }

    fn finish(mut self) -> NixConf {
        let mut keys = KeySet::default();
        for item in std::mem::take(&mut self.keys) {
            match item.text.parse::<PublicKey>() {
                Ok(key) => drop(keys.insert(key)),
                Err(error) => {
                    let what = format!("trusted-public-keys: {}: {error}", quote(&item.text));
                    self.warn_at(item.place, item.line, what);
                }
            }
        }
        NixConf {
            trusted_public_keys: keys,
            substituters: self.substituters.into_iter().map(|item| item.text).collect(),
            require_sigs: self.require_sigs,
            store: self.store,
            secret_key_files: self
                .secret_key_files
                .into_iter()
                .map(|item| PathBuf::from(item.text))
                .collect(),
            warnings: self.warnings,
        }
    }
}

/// The start of a text for a warning: short, and without control characters
/// that would disturb a terminal.
fn quote(text: &str) -> String {
    let mut short: String =
        text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        short.push_str("...");
    }
    format!("\"{short}\"")
}

/// Reads a regular file of at most [`FILE_BYTES_MAX`] bytes. A FIFO or a
/// device would hang the start of the agent and is refused.
fn read_bounded(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests;
