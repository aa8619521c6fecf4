//! What a peer can serve, as a set of 32-bit prefixes, and how that set travels.
//!
//! A prefix is the first four bytes (big-endian) of a store path's hash part or of another uniformly distributed
//! key. Two keys may share one: a hit is a hint, the peer's answer decides. About 18 bits per entry, so 50,000 paths
//! are 110 KiB.
//!
//! # Wire form
//!
//! All integers big-endian. `set(n)` is a strictly ascending list of `n` prefixes, Rice-coded, padded with zero bits
//! to a whole byte; its Rice parameter follows from `n` alone.
//!
//! ```text
//! snapshot: 0x01  version u64               count u32                  set(count)
//! delta:    0x02  version u64  base u64     removed u32  added u32     set(removed)  set(added)
//! ```
//!
//! There is exactly one encoding of a given value, and the decoder accepts nothing else. A delta has
//! `base < version`, is not empty, and names no prefix twice.

mod ledger;
mod rice;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use ledger::{LEDGER_CHANGES_MAX, Ledger, Update};

/// Most prefixes in one snapshot. A very large store has 300,000 paths; three times that, so that no honest machine
/// meets the limit, while the directory's share of one peer stays at 4 MB.
pub const ENTRIES_MAX: usize = 1_000_000;

/// Most prefixes, removed and added together, in one delta. A larger change travels as a snapshot.
pub const DELTA_ENTRIES_MAX: usize = 65_536;

/// Most bytes of an encoded snapshot: what [`ENTRIES_MAX`] entries need in the worst case (2.2 MB).
pub const SNAPSHOT_BYTES_MAX: usize = 13 + rice::bytes_max(ENTRIES_MAX as u32);

/// Most bytes of an encoded delta: two worst-case sets.
pub const DELTA_BYTES_MAX: usize = 25 + 2 * rice::bytes_max(DELTA_ENTRIES_MAX as u32);

/// Changes are gathered at least this long before they are announced.
pub const GATHER_MIN: Duration = Duration::from_millis(50);

/// And at most this long: what a machine has just got is then still new to the others.
pub const GATHER_MAX: Duration = Duration::from_secs(2);

/// How long changes are gathered before they are announced to so many peers: up to 20 peers [`GATHER_MIN`], with more in
/// proportion. So an agent in the middle of an update sends some 400 announcements a second at most, whatever the number
/// of its peers; at 50 ms a thousand of them were 20,000, and as many came in.
#[must_use]
pub fn gather(peers: usize) -> Duration {
    let times = u32::try_from(peers / 20).unwrap_or(u32::MAX).max(1);
    GATHER_MIN.saturating_mul(times).min(GATHER_MAX)
}

const KIND_SNAPSHOT: u8 = 1;
const KIND_DELTA: u8 = 2;

/// Number of a state of one peer's holdings. Starts at a random number with each run of the agent, so that a delta
/// made before a restart cannot fit a snapshot made after it; grows by one with every change.
pub type Version = u64;

/// Why bytes are not holdings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldingsError {
    /// Fewer bytes than the header promises.
    #[error("holdings end too early")]
    Truncated,
    /// Bytes after the end.
    #[error("holdings are followed by {0} more bytes")]
    Trailing(usize),
    /// Neither a snapshot nor a delta, or not the one asked for.
    #[error("unknown kind of holdings {0:#04x}")]
    Kind(u8),
    /// More than the named limits allow.
    #[error("holdings with {0} entries are too many")]
    TooMany(u64),
    /// A gap leads beyond 32 bits.
    #[error("an entry of the holdings is out of range")]
    OutOfRange,
    /// Padding bits that are not zero.
    #[error("the padding of the holdings is not zero")]
    Padding,
    /// A delta that goes backwards, changes nothing, or adds what it removes.
    #[error("a delta that is empty, goes backwards, or contradicts itself")]
    Delta,
}

/// Everything a peer can serve, at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    version: Version,
    entries: Vec<u32>,
}

impl Snapshot {
    /// Takes any list of prefixes; sorts it and drops doubles.
    ///
    /// # Errors
    /// [`HoldingsError::TooMany`] beyond [`ENTRIES_MAX`] different prefixes.
    pub fn new(version: Version, mut entries: Vec<u32>) -> Result<Self, HoldingsError> {
        entries.sort_unstable();
        entries.dedup();
        if entries.len() > ENTRIES_MAX {
            return Err(HoldingsError::TooMany(entries.len() as u64));
        }
        Ok(Self { version, entries })
    }

    /// The state that this is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The prefixes, strictly ascending.
    #[must_use]
    pub fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// The wire form, at most [`SNAPSHOT_BYTES_MAX`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(13 + self.entries.len() * 5 / 2);
        out.push(KIND_SNAPSHOT);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        rice::encode(&self.entries, &mut out);
        out
    }

    /// Reads exactly one snapshot.
    ///
    /// # Errors
    /// Whatever is not the canonical wire form within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, HoldingsError> {
        let mut input = Input(bytes);
        input.kind(KIND_SNAPSHOT)?;
        let version = input.u64()?;
        let count = input.u32()?;
        if count as usize > ENTRIES_MAX {
            return Err(HoldingsError::TooMany(u64::from(count)));
        }
        let entries = input.set(count)?;
        input.end()?;
        Ok(Self { version, entries })
    }
}

/// What changed between two versions of one peer's holdings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    base: Version,
    version: Version,
    removed: Vec<u32>,
    added: Vec<u32>,
}

impl Delta {
    /// Takes the changes in any order; sorts them and drops doubles.
    ///
    /// # Errors
    /// [`HoldingsError::Delta`] if it is empty, does not go forward or both adds and removes a prefix;
    /// [`HoldingsError::TooMany`] beyond [`DELTA_ENTRIES_MAX`].
    pub fn new(
        base: Version,
        version: Version,
        mut removed: Vec<u32>,
        mut added: Vec<u32>,
    ) -> Result<Self, HoldingsError> {
        for list in [&mut removed, &mut added] {
            list.sort_unstable();
            list.dedup();
        }
        let total = removed.len() + added.len();
        if total > DELTA_ENTRIES_MAX {
            return Err(HoldingsError::TooMany(total as u64));
        }
        if base >= version || total == 0 || !disjoint(&removed, &added) {
            return Err(HoldingsError::Delta);
        }
        Ok(Self { base, version, removed, added })
    }

    /// The version that this changes.
    #[must_use]
    pub fn base(&self) -> Version {
        self.base
    }

    /// The version that comes out.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the peer no longer serves, strictly ascending.
    #[must_use]
    pub fn removed(&self) -> &[u32] {
        &self.removed
    }

    /// What the peer serves from now on, strictly ascending.
    #[must_use]
    pub fn added(&self) -> &[u32] {
        &self.added
    }

    /// The wire form, at most [`DELTA_BYTES_MAX`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(25 + (self.removed.len() + self.added.len()) * 4);
        out.push(KIND_DELTA);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.base.to_be_bytes());
        out.extend_from_slice(&(self.removed.len() as u32).to_be_bytes());
        out.extend_from_slice(&(self.added.len() as u32).to_be_bytes());
        rice::encode(&self.removed, &mut out);
        rice::encode(&self.added, &mut out);
        out
    }

    /// Reads exactly one delta.
    ///
    /// # Errors
    /// Whatever is not the canonical wire form within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, HoldingsError> {
        let mut input = Input(bytes);
        input.kind(KIND_DELTA)?;
        let version = input.u64()?;
        let base = input.u64()?;
        let (removed, added) = (input.u32()?, input.u32()?);
        let total = u64::from(removed) + u64::from(added);
        if total > DELTA_ENTRIES_MAX as u64 {
            return Err(HoldingsError::TooMany(total));
        }
        let removed = input.set(removed)?;
        let added = input.set(added)?;
        input.end()?;
        Self::new(base, version, removed, added)
    }
}

/// Either message, told apart by its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The whole set.
    Snapshot(Snapshot),
    /// A change.
    Delta(Delta),
}

impl Message {
    /// Reads exactly one message.
    ///
    /// # Errors
    /// As [`Snapshot::decode`] and [`Delta::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HoldingsError> {
        match bytes.first() {
            None => Err(HoldingsError::Truncated),
            Some(&KIND_SNAPSHOT) => Snapshot::decode(bytes).map(Self::Snapshot),
            Some(&KIND_DELTA) => Delta::decode(bytes).map(Self::Delta),
            Some(&kind) => Err(HoldingsError::Kind(kind)),
        }
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Snapshot(snapshot) => snapshot.encode(),
            Self::Delta(delta) => delta.encode(),
        }
    }
}

/// The bytes not read yet.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], HoldingsError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(HoldingsError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn kind(&mut self, wanted: u8) -> Result<(), HoldingsError> {
        let [kind] = *self.array::<1>()?;
        if kind == wanted { Ok(()) } else { Err(HoldingsError::Kind(kind)) }
    }

    fn u32(&mut self) -> Result<u32, HoldingsError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, HoldingsError> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn set(&mut self, count: u32) -> Result<Vec<u32>, HoldingsError> {
        let (entries, used) = rice::decode(self.0, count)?;
        self.0 = self.0.get(used..).ok_or(HoldingsError::Truncated)?;
        Ok(entries)
    }

    fn end(&self) -> Result<(), HoldingsError> {
        if self.0.is_empty() { Ok(()) } else { Err(HoldingsError::Trailing(self.0.len())) }
    }
}

/// Whether two ascending lists share nothing.
fn disjoint(left: &[u32], right: &[u32]) -> bool {
    let mut right = right.iter().peekable();
    left.iter().all(|entry| {
        while right.next_if(|other| *other < entry).is_some() {}
        right.peek() != Some(&entry)
    })
}
