//! Why a blob could not be read, with an account of what each node did.

use std::{collections::BTreeMap, fmt};

use redstuff::{AxisKind, BlobId, DecodeError};

use crate::{
    ChainError, Committee,
    committee::NodeId,
    node::Verdict,
    plan::{NodeView, Outcome},
};

/// Why a blob could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The committee is not known.
    #[error("cannot read the committee from the chain")]
    Chain(#[from] ChainError),
    /// A quorum of the nodes does not know the blob.
    #[error("blob {0} does not exist on this network, or no longer")]
    NotFound(BlobId),
    /// A quorum of the nodes does not know the blob or must not serve it.
    #[error("blob {0} is blocked by the storage nodes")]
    Forbidden(BlobId),
    /// No node gave metadata that is the blob's.
    #[error("no storage node gave the metadata of blob {blob}: {account}")]
    NoMetadata {
        /// The blob.
        blob: BlobId,
        /// What the nodes did.
        account: Account,
    },
    /// Not enough slivers.
    #[error(
        "only {found} of the {needed} {axis} slivers needed of blob {blob} could be fetched: {account}"
    )]
    TooFew {
        /// The blob.
        blob: BlobId,
        /// Which slivers.
        axis: AxisName,
        /// Verified slivers.
        found: usize,
        /// Slivers needed.
        needed: usize,
        /// What the nodes did.
        account: Account,
    },
    /// The slivers do not make the blob.
    #[error("blob {0} cannot be decoded")]
    Decode(BlobId, #[source] DecodeError),
    /// The blob is larger than the caller wants.
    #[error("blob {blob} has {length} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The blob.
        blob: BlobId,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The range is not within the blob.
    #[error("the range ends beyond the {length} bytes of blob {blob}")]
    Range {
        /// The blob.
        blob: BlobId,
        /// Its length in bytes.
        length: u64,
    },
    /// The bytes are not those that the caller knows the hash of.
    #[error("blob {0} does not have the expected content")]
    Content(BlobId),
    /// A worker thread died.
    #[error("a worker thread failed")]
    Worker,
}

/// An axis in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxisName(pub AxisKind);

impl fmt::Display for AxisName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            AxisKind::Primary => "primary",
            AxisKind::Secondary => "secondary",
        })
    }
}

/// Shards by what their nodes did last, besides serving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    shards: BTreeMap<&'static str, u32>,
    /// Nodes that sent something that is never right.
    pub liars: Vec<NodeId>,
    pub(crate) missing: u32,
    pub(crate) forbidden: u32,
    pub(crate) wrong_shard: u32,
    pub(crate) passing: bool,
    total: u32,
}

impl Account {
    pub(crate) fn of(committee: &Committee, views: &[NodeView]) -> Self {
        let mut account = Self { total: committee.n_shards.get().into(), ..Self::default() };
        for (node, view) in committee.members.iter().zip(views) {
            let Some(last) = view.last else { continue };
            let weight = u32::try_from(node.shards.len()).unwrap_or(u32::MAX);
            let what = match last {
                Outcome::Good => continue,
                Outcome::Again => {
                    account.passing = true;
                    "of nodes whose answers were spoilt on the way"
                }
                Outcome::Lie | Outcome::Failed(Verdict::Wrong) => {
                    account.liars.push(node.node_id);
                    "of nodes that answered falsely"
                }
                Outcome::Failed(Verdict::Missing) => {
                    account.missing += weight;
                    "of nodes that do not have it"
                }
                Outcome::Failed(Verdict::Forbidden) => {
                    account.forbidden += weight;
                    "of nodes that must not serve it"
                }
                Outcome::Failed(Verdict::WrongShard) => {
                    account.wrong_shard += weight;
                    "of nodes in another epoch"
                }
                Outcome::Failed(Verdict::Busy(_)) => {
                    account.passing = true;
                    "of busy nodes"
                }
                Outcome::Failed(Verdict::Unreachable) => {
                    account.passing = true;
                    "of nodes that cannot be reached"
                }
                Outcome::Failed(Verdict::NotRegistered | Verdict::Incomplete) => {
                    "of nodes that are not ready"
                }
            };
            *account.shards.entry(what).or_default() += weight;
        }
        account
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shards.is_empty() {
            return f.write_str("no node reported a failure");
        }
        write!(f, "of {} shards ", self.total)?;
        for (at, (what, shards)) in self.shards.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{shards} are {what}")?;
        }
        Ok(())
    }
}

impl ReadError {
    /// Whether the writer, not a node, is to blame.
    #[must_use]
    pub fn is_inconsistent(&self) -> bool {
        matches!(self, Self::Decode(_, DecodeError::Inconsistent))
    }
}
