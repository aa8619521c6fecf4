//! A committee in a file: for networks without a chain that can be reached.
//!
//! ```toml
//! epoch = 1
//! n_shards = 10
//! aggregators = []            # optional
//!
//! [[nodes]]
//! node_id = "0x…"
//! name = "one"                # optional
//! address = "127.0.0.1:9185"
//! network_public_key = "…"    # base64, 33 bytes
//! bls_public_key = "…"        # base64, 48 bytes
//! shards = [0, 1, 2]
//! ```

use std::num::NonZeroU16;

use data_encoding::BASE64;
use redstuff::{ShardCount, ShardIndex};
use serde::{Deserialize, Serialize};

use crate::{
    Committee, CommitteeError, ObjectId, StorageNode, is_base_url,
    limits::{AGGREGATORS_MAX, NODE_NAME_CHARS_MAX},
};

/// A committee, and what else its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitteeFile {
    /// The committee; it does not change.
    pub committee: Committee,
    /// Aggregators (base URLs), the last resort for reading.
    pub aggregators: Vec<String>,
}

/// Why a text is no committee.
#[derive(Debug, thiserror::Error)]
pub enum CommitteeFileError {
    /// It is not TOML with these keys.
    #[error("it is not a committee file")]
    Syntax(#[from] toml::de::Error),
    /// A value cannot be what it should be.
    #[error("{0}")]
    Value(String),
    /// The nodes do not make a committee.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    epoch: u32,
    n_shards: NonZeroU16,
    #[serde(default)]
    aggregators: Vec<String>,
    nodes: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    node_id: ObjectId,
    #[serde(default)]
    name: String,
    address: String,
    network_public_key: String,
    bls_public_key: String,
    shards: Vec<u16>,
}

impl CommitteeFile {
    /// Whether a text is meant to be such a file, rather than one that names a network on a chain.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.lines().any(|line| line.trim() == "[[nodes]]")
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CommitteeFileError> {
        let content: Content = toml::from_str(text)?;
        let bad = |what: String| CommitteeFileError::Value(what);
        if content.aggregators.len() > AGGREGATORS_MAX {
            return Err(bad(format!("more than {AGGREGATORS_MAX} aggregators")));
        }
        if let Some(url) = content.aggregators.iter().find(|url| !is_base_url(url)) {
            return Err(bad(format!("{url:?} is not an http(s) URL")));
        }
        let n = ShardCount::new(content.n_shards.get()).map_err(|error| bad(error.to_string()))?;
        let nodes = content.nodes.into_iter().map(|node| node_of(node).map_err(bad));
        let committee = Committee::new(content.epoch, n, nodes.collect::<Result<_, _>>()?)?;
        Ok(Self { committee, aggregators: content.aggregators })
    }

    /// The text of such a file.
    ///
    /// # Errors
    /// Never: everything in it has a form in TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let Committee { epoch, n_shards, members, .. } = &self.committee;
        let node = |node: &StorageNode| Entry {
            node_id: node.node_id,
            name: node.name.clone(),
            address: node.address.clone(),
            network_public_key: BASE64.encode(&node.network_public_key),
            bls_public_key: BASE64.encode(&node.bls_public_key),
            shards: node.shards.iter().map(|shard| shard.0).collect(),
        };
        toml::to_string(&Content {
            epoch: *epoch,
            // A shard count is never zero.
            n_shards: NonZeroU16::new(n_shards.get()).unwrap_or(NonZeroU16::MIN),
            aggregators: self.aggregators.clone(),
            nodes: members.iter().map(node).collect(),
        })
    }

    /// What tells the network from all others: its size and its members.
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let mut identity = self.committee.n_shards.get().to_be_bytes().to_vec();
        let members = self.committee.members.iter();
        members.for_each(|member| identity.extend_from_slice(&member.node_id.0));
        identity
    }
}

fn node_of(entry: Entry) -> Result<StorageNode, String> {
    let id = entry.node_id;
    let bytes = |text: &str, key: &str| {
        BASE64.decode(text.as_bytes()).map_err(|error| format!("{key} of {id}: {error}"))
    };
    let bls = bytes(&entry.bls_public_key, "bls_public_key")?;
    if entry.name.chars().count() > NODE_NAME_CHARS_MAX {
        return Err(format!("the name of {id} has more than {NODE_NAME_CHARS_MAX} characters"));
    }
    Ok(StorageNode {
        node_id: id,
        network_public_key: bytes(&entry.network_public_key, "network_public_key")?,
        bls_public_key: bls
            .try_into()
            .map_err(|_| format!("bls_public_key of {id} does not have 48 bytes"))?,
        name: entry.name,
        address: entry.address,
        shards: entry.shards.into_iter().map(ShardIndex).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn file() -> CommitteeFile {
        let node = |id: u8, shards: &[u16]| StorageNode {
            node_id: ObjectId([id; 32]),
            name: format!("node \"{id}\""),
            address: format!("[::1]:{}", 9_000 + u16::from(id)),
            network_public_key: [&[3][..], &[id; 32]].concat(),
            bls_public_key: [id; 48],
            shards: shards.iter().copied().map(ShardIndex).collect(),
        };
        let nodes = vec![node(1, &[0, 3]), node(2, &[1, 2])];
        let committee = Committee::new(7, ShardCount::new(4).unwrap(), nodes).unwrap();
        CommitteeFile { committee, aggregators: vec!["https://a.example".to_owned()] }
    }

    #[test]
    fn what_is_written_is_read() {
        let file = file();
        let text = file.to_toml().unwrap();
        assert!(CommitteeFile::is_meant(&text));
        assert_eq!(CommitteeFile::parse(&text).unwrap(), file);
        let other = CommitteeFile::parse(&text.replace("n_shards = 4", "n_shards = 5"));
        assert!(other.unwrap_err().to_string().contains("shard 4 belongs to no node"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = file().to_toml().unwrap();
        let long = format!("name = \"{}\"", "n".repeat(NODE_NAME_CHARS_MAX + 1));
        for (from, to, expected) in [
            ("epoch = 7", "", "not a committee file"),
            ("epoch = 7", "epoch = -1", "not a committee file"),
            ("epoch = 7", "epoch = 7\nnew = 1", "not a committee file"),
            ("n_shards = 4", "n_shards = 0", "not a committee file"),
            ("n_shards = 4", "n_shards = 3", "shards"),
            ("https://a.example", "a.example", "not an http(s) URL"),
            ("[::1]:9001", "9001", "host:port"),
            ("shards = [0, 3]", "shards = [70000]", "not a committee file"),
            ("name = 'node \"1\"'", &long, "has more than"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from} is not in {text}");
            let error = CommitteeFile::parse(&changed).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
