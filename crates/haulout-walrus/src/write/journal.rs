//! What a write has achieved so far, on disk. Written to a temporary name, synced, renamed: a kill
//! at any instant leaves the old or the new journal.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use redstuff::{BlobId, Metadata, bcs::Wire, messages::ConfirmationCertificate};
use serde::{Deserialize, Serialize};

use crate::{Certified, ObjectId, Registered, limits::JOURNAL_BYTES_MAX};

/// The version of the format.
const VERSION: u32 = 1;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("cannot use the journal {path}")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not one, or damaged.
    #[error("{path} is not a journal of a write: {reason}")]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It is of another write.
    #[error("{path} is the journal of another write, of blob {blob}")]
    Other {
        /// Where it is.
        path: PathBuf,
        /// The blob of that write.
        blob: BlobId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    blob_id: BlobId,
    shards: u16,
    deletable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered: Option<RegisteredJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certified: Option<CertifiedJson>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RegisteredJson {
    object: ObjectId,
    epoch: u32,
    end_epoch: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CertificateJson {
    epoch: u32,
    bcs: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CertifiedJson {
    epoch: u32,
    transaction: String,
}

/// The journal of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    path: Option<PathBuf>,
    content: Content,
    certificate: Option<(u32, ConfirmationCertificate)>,
    certified: Option<Certified>,
}

impl Journal {
    /// A journal that is not kept.
    pub(super) fn in_memory(metadata: &Metadata, deletable: bool) -> Self {
        let content = Content {
            version: VERSION,
            blob_id: *metadata.id(),
            shards: metadata.shards().get(),
            deletable,
            registered: None,
            certificate: None,
            certified: None,
        };
        Self { path: None, content, certificate: None, certified: None }
    }

    /// Opens the journal at `path`, or begins one there.
    ///
    /// # Errors
    /// The file is something else, or cannot be read.
    pub fn open(path: &Path, metadata: &Metadata, deletable: bool) -> Result<Self, JournalError> {
        let new = Self { path: Some(path.to_owned()), ..Self::in_memory(metadata, deletable) };
        let Some(text) = read(path)? else { return Ok(new) };
        let malformed = |reason: String| JournalError::Malformed { path: path.to_owned(), reason };
        let found = Self { path: new.path.clone(), ..Self::parse(&text).map_err(malformed)? };
        let key = |journal: &Self| {
            let content = &journal.content;
            (content.blob_id, content.shards, content.deletable)
        };
        match key(&found) == key(&new) {
            true => Ok(found),
            false => {
                Err(JournalError::Other { path: path.to_owned(), blob: found.content.blob_id })
            }
        }
    }

    /// A journal from the content of its file; it is kept nowhere.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut content: Content =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if content.version != VERSION {
            return Err(format!("version {}", content.version));
        }
        let certificate = |CertificateJson { epoch, bcs }: CertificateJson| {
            let bytes = BASE64.decode(bcs.as_bytes()).map_err(|error| error.to_string())?;
            let certificate = ConfirmationCertificate::from_bcs(&bytes);
            Ok::<_, String>((epoch, certificate.map_err(|error| error.to_string())?))
        };
        let certificate = content.certificate.take().map(certificate).transpose()?;
        let certified = content.certified.take().map(|certified| Certified {
            epoch: certified.epoch,
            transaction: certified.transaction,
        });
        Ok(Self { path: None, content, certificate, certified })
    }

    /// The content of its file.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let certificate = self.certificate.as_ref().map(|(epoch, certificate)| CertificateJson {
            epoch: *epoch,
            bcs: BASE64.encode(&certificate.to_bcs()),
        });
        let certified = self.certified.as_ref().map(|certified| CertifiedJson {
            epoch: certified.epoch,
            transaction: certified.transaction.clone(),
        });
        let content = Content { certificate, certified, ..self.content.clone() };
        // Numbers and texts under fixed names: nothing in it can fail to be written.
        let mut text = serde_json::to_vec_pretty(&content).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// The registration, if it outlives `epoch`.
    pub(super) fn registered(&self, epoch: u32) -> Option<Registered> {
        let registered = self.content.registered.as_ref()?;
        (registered.end_epoch > epoch).then_some(Registered {
            object: registered.object,
            epoch: registered.epoch,
            end_epoch: registered.end_epoch,
            deletable: self.content.deletable,
            certified_epoch: self.certified.as_ref().map(|certified| certified.epoch),
        })
    }

    /// The certificate, if it is of `epoch`.
    pub(super) fn certificate(&self, epoch: u32) -> Option<&ConfirmationCertificate> {
        self.certificate.as_ref().filter(|(of, _)| *of == epoch).map(|(_, certificate)| certificate)
    }

    /// The certification.
    pub(super) fn certified(&self) -> Option<&Certified> {
        self.certified.as_ref()
    }

    pub(super) fn set_registered(&mut self, registered: Registered) -> Result<(), JournalError> {
        let Registered { object, epoch, end_epoch, .. } = registered;
        self.content.registered = Some(RegisteredJson { object, epoch, end_epoch });
        self.certificate = None;
        self.certified = None;
        self.save()
    }

    pub(super) fn set_certificate(
        &mut self,
        epoch: u32,
        certificate: ConfirmationCertificate,
    ) -> Result<(), JournalError> {
        self.certificate = Some((epoch, certificate));
        self.save()
    }

    pub(super) fn forget_certificate(&mut self) -> Result<(), JournalError> {
        self.certificate = None;
        self.save()
    }

    pub(super) fn set_certified(&mut self, certified: Certified) -> Result<(), JournalError> {
        self.certified = Some(certified);
        self.save()
    }

    fn save(&self) -> Result<(), JournalError> {
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |source| JournalError::Io { path: path.clone(), source };
        replace(path, &self.text()).map_err(failed)
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    let failed = |source| JournalError::Io { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > JOURNAL_BYTES_MAX {
        let reason = format!("longer than {JOURNAL_BYTES_MAX} bytes");
        return Err(JournalError::Malformed { path: path.to_owned(), reason });
    }
    Ok(Some(text))
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(directory)?.sync_all()
}
