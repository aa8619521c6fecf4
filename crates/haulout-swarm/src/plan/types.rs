//! What goes into a plan and what comes out of it.

use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

use super::{SEGMENT_BYTES, WINDOW_BYTES};

/// The knobs of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanConfig {
    /// Bytes per segment; rounded up to whole frames. Larger: fewer requests; smaller: finer sharing.
    pub segment_bytes: u64,
    /// Bytes handed out ahead of the consumer, at least two segments. This is the memory of the transfer.
    pub window_bytes: u64,
    /// No byte for so long: the source counts as stalled.
    pub stall_after: Duration,
    /// A segment younger than this is never copied: see [`crate::choose::hedge_delay`].
    pub hedge_after: Duration,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            window_bytes: WINDOW_BYTES,
            stall_after: crate::peers::SILENCE,
            hedge_after: crate::choose::HEDGE_DEFAULT,
        }
    }
}

/// Names one request within a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// A byte range to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// To report about it.
    pub id: RequestId,
    /// First byte of the NAR.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// What a source is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask it for this, then call [`super::NarPlan::next`] again.
    Fetch(Segment),
    /// Nothing now. Ask again after any report, and at [`super::NarPlan::wake_at`].
    Wait,
    /// The NAR is complete.
    Complete,
    /// It is not (or no longer) a source.
    NotASource,
}

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Somebody can be asked.
    Active,
    /// All sources are stalled: look for others, or wait.
    AllStalled,
    /// There is no source any more: find one or give up.
    NobodyLeft,
    /// All bytes are there.
    Complete,
}

/// What a report of progress means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress<S> {
    /// Keep these bytes; whatever else arrived is a copy of what is there already. May be empty.
    pub fresh: Range<u64>,
    /// Requests that are of no use any more: stop them, and do not report them.
    pub cancel: SmallVec<[(S, RequestId); 2]>,
    /// Whether the request is finished.
    pub finished: bool,
}

/// A source from which nothing came for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled<S> {
    /// Whom.
    pub source: S,
    /// What was asked. May be left running (a late byte counts) or stopped and reported as failed.
    pub requests: SmallVec<[RequestId; 4]>,
}
