//! What upstreams say, and what is said of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use haulout_nix::NarInfo;
use serde::Serialize;

use crate::error::Trouble;
use crate::location::FileLocation;

/// Names an upstream: its URL without parameters and passwords.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub(crate) Arc<str>);

impl UpstreamId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an upstream is reached, and how it came to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP or HTTPS.
    Http,
    /// An S3-compatible service.
    S3,
    /// A directory.
    Directory,
    /// HTTP, found on the local network.
    Neighbour,
}

/// A narinfo that the judge accepted, and where its NAR is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the upstream says, parsed.
    pub narinfo: NarInfo,
    /// The file with the NAR.
    pub file: FileLocation,
}

/// What all upstreams together say about a path.
#[derive(Debug, Clone)]
pub enum Answer {
    /// One of them has it.
    Found(Arc<Found>),
    /// All of them answered, and none has it (or only in a form that is not believed).
    Absent,
    /// At least one did not answer; the last trouble.
    Unknown(Trouble),
}

/// One upstream as `haulout status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    /// Its URL.
    pub url: String,
    /// What it is.
    pub kind: Kind,
    /// Lower is asked first.
    pub priority: i64,
    /// Median time to an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// For how much longer it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<Duration>,
    /// The last trouble with it, also when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// narinfos it had.
    pub found: u64,
    /// narinfos it did not have.
    pub absent: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Bytes it sent, compressed, narinfos included.
    pub bytes: u64,
}
