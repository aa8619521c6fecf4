//! The file that names an archive.

use haulout_sui::ObjectId;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// Bytes of an archive file; it is text.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Names an archive on a network. There is no secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveFile {
    /// A preset, or a network file; a relative path is relative to this file's directory.
    pub network: String,
    /// The `Archive` object.
    pub archive: ObjectId,
    /// The package that defined its type.
    pub package: ObjectId,
    /// The publisher's cap, for those who publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher_cap: Option<ObjectId>,
    /// The owner's cap, for those who own it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_cap: Option<ObjectId>,
}

/// Why there is no [`ArchiveFile`].
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be read or written.
    Io(io::Error),
    /// It is not an archive file: what is wrong, with the line.
    Form(String),
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Form(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for FileError {}

impl ArchiveFile {
    /// Reads a file; `network` comes out so that it can be loaded from anywhere.
    ///
    /// # Errors
    /// As [`FileError`] says.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let file = std::fs::File::open(path).map_err(FileError::Io)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text)
            .map_err(FileError::Io)?;
        let mut archive: Self =
            toml::from_str(&text).map_err(|error| FileError::Form(error.to_string()))?;
        if haulout_sui::Network::preset(&archive.network).is_none() {
            let directory = path.parent().unwrap_or_else(|| Path::new(""));
            archive.network = directory.join(&archive.network).display().to_string();
        }
        Ok(archive)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Strings and ids always have a TOML form.
        toml::to_string(self).unwrap_or_default()
    }
}
