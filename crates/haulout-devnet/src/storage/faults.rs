//! What is made to go wrong, on demand.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redstuff::BlobId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What is wrong with one node. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The port is closed and every connection cut.
    pub down: bool,
    /// Milliseconds before the answer to each request.
    pub delay_ms: u64,
    /// Bytes a second at which each body is sent; 0 is no limit.
    pub bytes_per_second: u64,
    /// Connections are taken, requests are read, nothing is ever answered.
    pub silent: bool,
    /// What is wrong with the slivers that are served.
    pub slivers: Option<Lie>,
    /// What is wrong with the metadata that is served.
    pub metadata: Option<Lie>,
    /// Confirmations are signed with another key.
    pub wrong_signature: bool,
    /// Shards whose slivers this node has lost.
    pub missing_shards: BTreeSet<u16>,
    /// Every request is refused like this.
    pub refuse: Option<Refuse>,
    /// Blobs on the node's deny list, by id.
    pub denied: BTreeSet<String>,
    /// The node presents a certificate of another key.
    pub impostor: bool,
}

/// How an answer is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// One bit is flipped.
    Flip,
    /// The second half is missing.
    Truncate,
    /// The bytes are not BCS at all.
    Garbage,
    /// Those of another sliver or blob, genuine otherwise.
    Other,
}

/// A refusal that comes from in front of the service, as from a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// HTTP status: 429 and 503 are the usual ones.
    pub status: u16,
    /// Seconds in `Retry-After`, if it is sent.
    #[serde(default)]
    pub retry_after: Option<u32>,
    /// Length of the text in bytes: a hostile node may send gigabytes.
    #[serde(default)]
    pub body_bytes: u64,
}

/// Longest body that [`Refuse`] may ask for, in bytes.
pub(crate) const REFUSAL_BYTES_MAX: u64 = 4 << 30;

impl Lie {
    /// Makes `bytes` wrong; `Other` needs what it is to be replaced by.
    pub(crate) fn apply(self, bytes: &[u8], other: Option<&[u8]>) -> Vec<u8> {
        let mut wrong = bytes.to_vec();
        match self {
            Self::Flip => {
                // Neither in a length nor in an index: well-formed, and wrong.
                let middle = wrong.len() / 2;
                if let Some(byte) = wrong.get_mut(middle) {
                    *byte ^= 0x10;
                }
            }
            Self::Truncate => wrong.truncate(bytes.len() / 2),
            Self::Garbage => wrong.fill(0xff),
            Self::Other => wrong = other.map_or_else(|| vec![0; bytes.len()], <[u8]>::to_vec),
        }
        wrong
    }
}

impl Faults {
    pub(crate) fn denies(&self, blob: &BlobId) -> bool {
        !self.denied.is_empty() && self.denied.contains(&blob.to_string())
    }
}

/// The faults of one node, as they are set now. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Switch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    faults: RwLock<Arc<Faults>>,
    /// Says whether the node is down, and wakes those who wait for it to change.
    down: watch::Sender<bool>,
    /// Whether the port is open.
    open: watch::Sender<bool>,
}

impl Default for Switch {
    fn default() -> Self {
        let (down, open) = (watch::Sender::new(false), watch::Sender::new(true));
        Self(Arc::new(Shared { faults: RwLock::default(), down, open }))
    }
}

impl Switch {
    pub(crate) fn get(&self) -> Arc<Faults> {
        self.0.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, faults: Faults) {
        let down = faults.down;
        *self.0.faults.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(faults);
        self.0.down.send_replace(down);
    }

    /// Says that the port is open now, or closed.
    pub(crate) fn set_open(&self, open: bool) {
        self.0.open.send_replace(open);
    }

    /// Waits until the port is as the faults say.
    pub(crate) async fn in_effect(&self) {
        let mut open = self.0.open.subscribe();
        // The sender lives as long as this.
        let _ = open.wait_for(|open| *open != self.get().down).await;
    }

    pub(crate) fn watch_down(&self) -> watch::Receiver<bool> {
        self.0.down.subscribe()
    }
}

/// How fast a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pace {
    pub(crate) bytes_per_second: u64,
}

impl Pace {
    /// How much is sent at a time, and how long to wait before it.
    pub(crate) fn step(self) -> Option<(usize, Duration)> {
        const STEPS_A_SECOND: u64 = 20;
        if self.bytes_per_second == 0 {
            return None;
        }
        let bytes = self.bytes_per_second.div_ceil(STEPS_A_SECOND);
        let wait =
            Duration::from_nanos(1_000_000_000_u64.saturating_mul(bytes) / self.bytes_per_second);
        Some((usize::try_from(bytes).unwrap_or(usize::MAX), wait))
    }
}
