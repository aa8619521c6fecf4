//! The parser.

use super::{
    COMPRESSION_BYTES_MAX, Compression, ContentAddress, NarHash, NarInfo, NarInfoError, PathInfo,
    REFERENCES_MAX, SIGNATURES_MAX, Signature, StoreDir, StorePath, TEXT_BYTES_MAX, URL_BYTES_MAX,
};
use std::str::FromStr;

/// The values found so far, as text; checked when all lines were seen.
#[derive(Default)]
struct Fields<'t> {
    store_path: Option<&'t str>,
    url: Option<&'t str>,
    compression: Option<&'t str>,
    file_hash: Option<&'t str>,
    file_size: Option<&'t str>,
    nar_hash: Option<&'t str>,
    nar_size: Option<&'t str>,
    references: Option<&'t str>,
    deriver: Option<&'t str>,
    ca: Option<&'t str>,
    signatures: Vec<Signature>,
}

pub(super) fn parse(text: &[u8], dir: &StoreDir) -> Result<NarInfo, NarInfoError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(NarInfoError::TooLong);
    }
    let text = std::str::from_utf8(text).map_err(|_| NarInfoError::NotUtf8)?;
    let body = text.strip_suffix('\n').ok_or(NarInfoError::NoFinalNewline)?;
    let mut fields = Fields::default();
    for (index, line) in body.split('\n').enumerate() {
        let number = index + 1;
        if line.bytes().any(|b| b.is_ascii_control()) {
            return Err(NarInfoError::ControlCharacter { line: number });
        }
        let (key, value) = line
            .split_once(':')
            .and_then(|(key, rest)| Some((key, rest.strip_prefix(' ')?)))
            .filter(|(key, _)| !key.is_empty())
            .ok_or(NarInfoError::Line { line: number })?;
        fields.take(key, value)?;
    }
    fields.finish(dir)
}

impl<'t> Fields<'t> {
    fn take(&mut self, key: &str, value: &'t str) -> Result<(), NarInfoError> {
        let (field, slot) = match key {
            "StorePath" => ("StorePath", &mut self.store_path),
            "URL" => ("URL", &mut self.url),
            "Compression" => ("Compression", &mut self.compression),
            "FileHash" => ("FileHash", &mut self.file_hash),
            "FileSize" => ("FileSize", &mut self.file_size),
            "NarHash" => ("NarHash", &mut self.nar_hash),
            "NarSize" => ("NarSize", &mut self.nar_size),
            "References" => ("References", &mut self.references),
            "Deriver" => ("Deriver", &mut self.deriver),
            "CA" => ("CA", &mut self.ca),
            "Sig" => return self.take_signature(value),
            _ => return Ok(()),
        };
        if slot.replace(value).is_some() {
            return Err(NarInfoError::Duplicate { field });
        }
        Ok(())
    }

    fn take_signature(&mut self, value: &str) -> Result<(), NarInfoError> {
        if self.signatures.len() == SIGNATURES_MAX {
            return Err(NarInfoError::TooMany { field: "Sig", max: SIGNATURES_MAX });
        }
        self.signatures.push(value.parse()?);
        Ok(())
    }

    fn finish(self, dir: &StoreDir) -> Result<NarInfo, NarInfoError> {
        let path = required(self.store_path, "StorePath")?;
        let nar_hash = required(self.nar_hash, "NarHash")?;
        let nar_size = size(required(self.nar_size, "NarSize")?, "NarSize")?;
        if nar_size == 0 {
            return Err(NarInfoError::Size { field: "NarSize" });
        }
        let mut info = PathInfo {
            path: dir
                .parse_path(path)
                .map_err(|source| NarInfoError::Path { field: "StorePath", source })?,
            nar_hash: hash::<NarHash>(nar_hash, "NarHash")?,
            nar_size,
            references: references(self.references.unwrap_or(""))?,
            deriver: match self.deriver {
                None | Some("unknown-deriver") => None,
                Some(deriver) => Some(base_name(deriver, "Deriver")?),
            },
            signatures: self.signatures,
            ca: match self.ca {
                None | Some("") => None,
                Some(ca) => Some(ca.parse::<ContentAddress>()?),
            },
        };
        info.normalise();
        Ok(NarInfo {
            info,
            url: url(required(self.url, "URL")?)?,
            compression: compression(self.compression.unwrap_or(""))?,
            file_hash: self.file_hash.map(|text| hash(text, "FileHash")).transpose()?,
            // Nix writes and reads 0 as "not known".
            file_size: match self.file_size.map(|text| size(text, "FileSize")).transpose()? {
                Some(0) => None,
                known => known,
            },
        })
    }
}

fn required<'t>(value: Option<&'t str>, field: &'static str) -> Result<&'t str, NarInfoError> {
    value.filter(|value| !value.is_empty()).ok_or(NarInfoError::Missing { field })
}

fn size(text: &str, field: &'static str) -> Result<u64, NarInfoError> {
    // `u64::from_str` alone would take "+1" and "007", which have other spellings.
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).ok_or(NarInfoError::Size { field })
}

fn hash<H: FromStr<Err = crate::hash::HashError>>(
    text: &str,
    field: &'static str,
) -> Result<H, NarInfoError> {
    text.parse().map_err(|source| NarInfoError::Hash { field, source })
}

fn base_name(text: &str, field: &'static str) -> Result<StorePath, NarInfoError> {
    text.parse().map_err(|source| NarInfoError::Path { field, source })
}

fn references(text: &str) -> Result<Vec<StorePath>, NarInfoError> {
    let mut references = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if references.len() == REFERENCES_MAX {
            return Err(NarInfoError::TooMany { field: "References", max: REFERENCES_MAX });
        }
        references.push(base_name(word, "References")?);
    }
    Ok(references)
}

fn url(text: &str) -> Result<String, NarInfoError> {
    if text.len() > URL_BYTES_MAX || text.contains(char::is_whitespace) {
        return Err(NarInfoError::Url);
    }
    Ok(text.to_owned())
}

fn compression(text: &str) -> Result<Compression, NarInfoError> {
    Ok(match text {
        "" | "bzip2" => Compression::Bzip2,
        "none" => Compression::None,
        "xz" => Compression::Xz,
        "zstd" => Compression::Zstd,
        "gzip" => Compression::Gzip,
        "br" => Compression::Brotli,
        other => {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if other.len() > COMPRESSION_BYTES_MAX || !other.bytes().all(plain) {
                return Err(NarInfoError::Compression);
            }
            Compression::Other(other.into())
        }
    })
}
