//! `[[archive]]`: an archive that the agent asks.

use std::path::PathBuf;

use haulout_nix::PublicKey;
use haulout_sui::ObjectId;
use haulout_sui::network::base58_decode;
use serde::{Deserialize, Serialize};

/// Most archives: each is a look-up for every path that nobody here has.
pub(super) const ARCHIVES_MAX: usize = 16;

/// `[[archive]]`, checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub(crate) struct Archive {
    /// Which.
    #[serde(flatten)]
    pub(crate) name: Name,
    /// What proofs start from, if the network does not say, or instead of what it says.
    #[serde(flatten)]
    pub(crate) anchor: Option<Anchor>,
    /// Lower is asked first.
    pub(crate) priority: u32,
    /// Keys whose paths it may bring here although Nix does not trust them.
    pub(crate) keys: Vec<String>,
    /// It may bring every path that is in it, signed or not.
    pub(crate) everything: bool,
    /// Minutes between its updates, published or not, as its owner promises; without it, it is never too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beat_minutes: Option<u32>,
}

/// How an archive is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Name {
    /// The file that `haulout archive init` wrote.
    File {
        /// Where it is.
        file: PathBuf,
    },
    /// By its ids.
    Object {
        /// The `Archive` object.
        id: ObjectId,
        /// The package that defined its type.
        #[serde(skip_serializing_if = "Option::is_none")]
        package: Option<ObjectId>,
        /// `mainnet`, `testnet` or a network file.
        network: String,
    },
}

/// What is believed about the chain before anybody was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Anchor {
    /// The digest of a checkpoint that names a committee.
    Checkpoint(String),
    /// A committee file.
    Committee(PathBuf),
}

/// What may be written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    file: Option<PathBuf>,
    id: Option<String>,
    package: Option<String>,
    network: Option<String>,
    checkpoint: Option<String>,
    committee: Option<PathBuf>,
    priority: Option<u32>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    everything: bool,
    beat_minutes: Option<u32>,
}

fn object_id(key: &str, text: &str) -> Result<ObjectId, String> {
    text.parse().map_err(|_| format!("{key}: {text:?} is not an object id: 0x and 64 hex digits"))
}

impl TryFrom<Raw> for Archive {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let name = match (raw.file, raw.id) {
            (Some(file), None) if raw.network.is_none() && raw.package.is_none() => {
                Name::File { file }
            }
            (Some(_), None) => {
                return Err("`file` names network and package already".to_owned());
            }
            (None, Some(id)) => Name::Object {
                id: object_id("id", &id)?,
                package: raw.package.map(|text| object_id("package", &text)).transpose()?,
                network: raw.network.ok_or("`id` needs `network`: mainnet, testnet or a file")?,
            },
            (None, None) => {
                return Err("an archive needs `file` (what `haulout archive init` wrote) or `id`"
                    .to_owned());
            }
            (Some(_), Some(_)) => return Err("give `file` or `id`, not both".to_owned()),
        };
        let anchor = match (raw.checkpoint, raw.committee) {
            (None, None) => None,
            (Some(digest), None) if base58_decode(&digest).is_some() => {
                Some(Anchor::Checkpoint(digest))
            }
            (Some(digest), None) => {
                return Err(format!("checkpoint: {digest:?} is not the digest of a checkpoint"));
            }
            (None, Some(path)) => Some(Anchor::Committee(path)),
            (Some(_), Some(_)) => {
                return Err("give `checkpoint` or `committee`, not both".to_owned());
            }
        };
        for key in &raw.keys {
            key.parse::<PublicKey>()
                .map_err(|error| format!("keys: {key:?} is not a public key: {error}"))?;
        }
        if raw.everything && !raw.keys.is_empty() {
            return Err("`keys` means nothing with `everything = true`".to_owned());
        }
        if raw.beat_minutes == Some(0) {
            return Err(
                "beat_minutes: an archive is not updated all the time; leave it out if its \
                        owner promises nothing"
                    .to_owned(),
            );
        }
        Ok(Self {
            name,
            anchor,
            priority: raw.priority.unwrap_or(40),
            keys: raw.keys,
            everything: raw.everything,
            beat_minutes: raw.beat_minutes,
        })
    }
}
