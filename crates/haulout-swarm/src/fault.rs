//! What a peer can do wrong, and what each costs it.

use std::fmt;

/// Something a peer did that cost us a retry.
///
/// The caller reports it to [`crate::peers::PeerTable::blame`]. Only faults that a healthy, honest peer can
/// never show lead to a ban; whatever a bad cable or a busy disk can cause only makes us back off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Bytes that do not match the hash they were promised under.
    WrongContent,
    /// A path info whose signature or content address does not hold.
    ForgedSignature,
    /// A frame that breaks the protocol: malformed, too large, unasked for.
    ProtocolViolation,
    /// No answer, or no progress, in the time allowed.
    Timeout,
    /// The connection or the stream ended in mid-answer.
    Cut,
    /// The peer said that it is too busy.
    Overloaded,
    /// Its holdings named the key, its answer was no. Normal now and then: the holdings are a hint with
    /// 32-bit prefixes, and stores collect garbage.
    FalseHint,
}

/// How hard a fault is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Counted only, until it happens many times in a row.
    Noted,
    /// The peer is left alone for some seconds.
    BackOff,
    /// The peer is banned at once.
    Ban,
}

impl Fault {
    /// Every fault, in the order of [`Fault::index`].
    pub const ALL: [Self; 7] = [
        Self::WrongContent,
        Self::ForgedSignature,
        Self::ProtocolViolation,
        Self::Timeout,
        Self::Cut,
        Self::Overloaded,
        Self::FalseHint,
    ];

    /// Position in [`Fault::ALL`], for counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A stable word for it, for counters that scripts read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WrongContent => "wrong-content",
            Self::ForgedSignature => "forged-signature",
            Self::ProtocolViolation => "protocol-violation",
            Self::Timeout => "timeout",
            Self::Cut => "cut",
            Self::Overloaded => "overloaded",
            Self::FalseHint => "false-hint",
        }
    }

    /// What this fault costs.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::WrongContent | Self::ForgedSignature | Self::ProtocolViolation => Severity::Ban,
            Self::Timeout | Self::Cut | Self::Overloaded => Severity::BackOff,
            Self::FalseHint => Severity::Noted,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongContent => "wrong content",
            Self::ForgedSignature => "forged signature",
            Self::ProtocolViolation => "protocol violation",
            Self::Timeout => "no answer in time",
            Self::Cut => "cut off in mid-answer",
            Self::Overloaded => "too busy",
            Self::FalseHint => "did not have what it announced",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_matches_the_list() {
        for (index, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(fault.index(), index);
        }
    }
}
