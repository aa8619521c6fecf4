//! Who stores what: the committees of an epoch, as the chain has them.

use std::{fmt, str::FromStr};

use redstuff::{BlobId, PairIndex, ShardCount, ShardIndex, messages::PUBLIC_KEY_BYTES};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Most members of a committee. The contracts allow 111 (150 in an unreleased version); this is
/// room for growth, and what a hostile full node can make us keep.
pub const MEMBERS_MAX: usize = 4096;

/// Longest network address of a node, in bytes: a DNS name has at most 253.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// Bytes of a compressed P-256 public key.
pub const NETWORK_KEY_BYTES: usize = 33;

/// A Sui object id or address: 32 bytes, `0x` and 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

/// The id of a storage node: the id of its `StakingPool` object.
pub type NodeId = ObjectId;

/// The text was not an object id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object id is 0x and up to 64 hex digits")]
pub struct BadObjectId;

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", data_encoding::HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = BadObjectId;

    /// Short forms such as `0x6` are filled with leading zeros, as everywhere in Sui.
    fn from_str(text: &str) -> Result<Self, BadObjectId> {
        let digits = text.strip_prefix("0x").ok_or(BadObjectId)?;
        if digits.is_empty() || digits.len() > 64 {
            return Err(BadObjectId);
        }
        // Filled up to 64 characters, which are more bytes where they are not digits at all.
        let padded = format!("{digits:0>64}");
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(padded.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(BadObjectId)
    }
}

/// Text for people's formats, the 32 plain bytes for BCS.
impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(|error| D::Error::custom(format_args!("{error}, not {text:?}")))
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// A member of a committee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageNode {
    /// Its id on chain.
    pub node_id: NodeId,
    /// Its name, chosen by its operator; never to be believed or printed raw.
    pub name: String,
    /// Where its REST interface is: `host:port`.
    pub address: String,
    /// Compressed P-256 key of its TLS certificate, [`NETWORK_KEY_BYTES`] bytes.
    pub network_public_key: Vec<u8>,
    /// Compressed BLS12-381 G1 key that signs its confirmations.
    pub bls_public_key: [u8; PUBLIC_KEY_BYTES],
    /// The shards it stores.
    pub shards: Vec<ShardIndex>,
}

/// The nodes of one epoch. Members are in the order of the contract: a member's position is its
/// signer index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committee {
    /// The epoch.
    pub epoch: u32,
    /// The number of shards.
    pub n_shards: ShardCount,
    /// The members, ascending by node id.
    pub members: Vec<StorageNode>,
    /// Member by shard.
    owners: Vec<u16>,
}

/// Why members do not make a committee.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitteeError {
    /// Too many members.
    #[error("a committee of {0} members: at most {MEMBERS_MAX} are handled")]
    TooManyMembers(usize),
    /// A member without a shard.
    #[error("node {0} has no shard")]
    NoShard(NodeId),
    /// A shard beyond the number of shards.
    #[error("node {node} has shard {shard}, but there are only {shards}")]
    ShardOutOfRange {
        /// The member.
        node: NodeId,
        /// The shard.
        shard: u16,
        /// The number of shards.
        shards: ShardCount,
    },
    /// A shard with two owners.
    #[error("shard {0} belongs to two nodes")]
    SharedShard(u16),
    /// A shard with no owner.
    #[error("shard {0} belongs to no node")]
    OrphanShard(u16),
    /// An address that cannot be dialled.
    #[error("node {0} has an address that is not host:port")]
    Address(NodeId),
    /// A network key of the wrong length.
    #[error("node {0} has a network key that is not a compressed P-256 point")]
    NetworkKey(NodeId),
}

impl Committee {
    /// Checks and builds a committee: every shard has one owner, every member a shard, an address
    /// and a network key.
    ///
    /// # Errors
    /// What is wrong, on which node or shard.
    pub fn new(
        epoch: u32,
        n_shards: ShardCount,
        members: Vec<StorageNode>,
    ) -> Result<Self, CommitteeError> {
        if members.len() > MEMBERS_MAX {
            return Err(CommitteeError::TooManyMembers(members.len()));
        }
        let mut owners = vec![u16::MAX; n_shards.as_usize()];
        for (position, node) in members.iter().enumerate() {
            check_node(node)?;
            for &ShardIndex(shard) in &node.shards {
                let owner =
                    owners.get_mut(usize::from(shard)).ok_or(CommitteeError::ShardOutOfRange {
                        node: node.node_id,
                        shard,
                        shards: n_shards,
                    })?;
                if *owner != u16::MAX {
                    return Err(CommitteeError::SharedShard(shard));
                }
                // At most MEMBERS_MAX members.
                *owner = u16::try_from(position).unwrap_or(u16::MAX);
            }
        }
        match owners.iter().position(|&owner| owner == u16::MAX) {
            Some(shard) => {
                Err(CommitteeError::OrphanShard(u16::try_from(shard).unwrap_or(u16::MAX)))
            }
            None => Ok(Self { epoch, n_shards, members, owners }),
        }
    }

    /// The position of the member that stores `shard`; `None` if there is no such shard.
    #[must_use]
    pub fn owner(&self, shard: ShardIndex) -> Option<usize> {
        self.owners.get(usize::from(shard.0)).map(|&owner| owner.into())
    }

    /// The position of the member that stores pair `pair` of `blob`; `None` if there is no such pair.
    #[must_use]
    pub fn owner_of_pair(&self, blob: &BlobId, pair: PairIndex) -> Option<usize> {
        self.owner(pair.shard(self.n_shards, blob).ok()?)
    }

    /// The pairs of `blob` that member `position` stores, ascending.
    #[must_use]
    pub fn pairs_of(&self, position: usize, blob: &BlobId) -> Vec<PairIndex> {
        let shards = self.members.get(position).map_or(&[][..], |node| &node.shards);
        let mut pairs: Vec<_> =
            shards.iter().filter_map(|shard| shard.pair(self.n_shards, blob).ok()).collect();
        pairs.sort_unstable();
        pairs
    }

    /// How many shards the members at these positions have together; each counts once.
    #[must_use]
    pub fn weight(&self, positions: impl IntoIterator<Item = usize>) -> u32 {
        let mut seen = vec![false; self.members.len()];
        let mut weight = 0;
        for position in positions {
            if let Some((seen, member)) = seen.get_mut(position).zip(self.members.get(position))
                && !std::mem::replace(seen, true)
            {
                // All members together have at most 65,535.
                weight += u32::try_from(member.shards.len()).unwrap_or(u32::MAX);
            }
        }
        weight
    }

    /// Whether `weight` shards are a quorum: at least `2f + 1`, as the contract counts
    /// (`3 * weight >= 2 n + 1`).
    #[must_use]
    pub fn is_quorum(&self, weight: u32) -> bool {
        3 * u64::from(weight) > 2 * u64::from(self.n_shards.get())
    }

    /// Whether at least one of `weight` shards is correct: more than `f`
    /// (`3 * weight >= n + 1`).
    #[must_use]
    pub fn is_above_validity(&self, weight: u32) -> bool {
        3 * u64::from(weight) > u64::from(self.n_shards.get())
    }
}

fn check_node(node: &StorageNode) -> Result<(), CommitteeError> {
    let id = node.node_id;
    if node.shards.is_empty() {
        return Err(CommitteeError::NoShard(id));
    }
    if split_address(&node.address).is_none() {
        return Err(CommitteeError::Address(id));
    }
    let key = &node.network_public_key;
    if key.len() != NETWORK_KEY_BYTES || !matches!(key[0], 2 | 3) {
        return Err(CommitteeError::NetworkKey(id));
    }
    Ok(())
}

/// Host (a name, an IPv4 address, or an IPv6 address without its brackets) and port.
#[must_use]
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    if address.len() > ADDRESS_BYTES_MAX || !address.is_ascii() {
        return None;
    }
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').filter(|host| host.contains(':'))?,
        None if host.contains(':') => return None,
        None => host,
    };
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(allowed) {
        return None;
    }
    port.parse().ok().filter(|&port| port != 0).map(|port| (host, port))
}

/// How far the change to the current epoch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochState {
    /// Shards are moving to their new nodes; nodes with this many shards are done.
    ChangeSync(u16),
    /// The change was done at this time, in milliseconds since 1970.
    ChangeDone(u64),
    /// The parameters of the next epoch were selected at this time, in milliseconds since 1970.
    NextParamsSelected(u64),
}

/// The committees the chain knows at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitteeView {
    /// The current epoch.
    pub epoch: u32,
    /// How far the change to it has come.
    pub state: EpochState,
    /// The committee of this epoch: takes all writes.
    pub current: Committee,
    /// The committee of the epoch before: during a change it still has what was certified in its time.
    pub previous: Option<Committee>,
    /// The committee of the next epoch, once it was chosen.
    pub next: Option<Committee>,
}

impl CommitteeView {
    /// A view of one committee that does not change.
    #[must_use]
    pub fn steady(committee: Committee) -> Self {
        let epoch = committee.epoch;
        Self {
            epoch,
            state: EpochState::ChangeDone(0),
            current: committee,
            previous: None,
            next: None,
        }
    }

    /// Whether shards are moving.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        matches!(self.state, EpochState::ChangeSync(_))
    }

    /// The committees whose nodes may have a shard's slivers, the likeliest first: while shards are
    /// moving the node that gives one up has it longer than the other takes to get it.
    pub fn holding(&self) -> impl Iterator<Item = &Committee> + Send {
        let previous = self.previous.as_ref().filter(|_| self.is_changing());
        std::iter::once(&self.current).chain(previous)
    }

    /// The committee to read a blob from that was first certified in epoch `certified`: while
    /// shards are moving the previous one has what is older than this epoch.
    #[must_use]
    pub fn for_reading(&self, certified: Option<u32>) -> &Committee {
        match (&self.previous, certified) {
            (Some(previous), Some(certified)) if self.is_changing() && certified < self.epoch => {
                previous
            }
            _ => &self.current,
        }
    }
}

#[cfg(test)]
mod tests;
