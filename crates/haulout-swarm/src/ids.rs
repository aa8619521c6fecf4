//! The two things every other module speaks of: a peer and a point in time.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

/// A peer's Ed25519 public key, which is also its name.
///
/// Transport security proves that the other end holds the secret half; nothing here checks it again.
/// Text form: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Length of a key in bytes.
    pub const BYTES: usize = 32;

    /// Takes the raw public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hexadecimal digits: for tables and log lines, not unique against an attacker.
    #[must_use]
    pub fn short(&self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Why a text is not a peer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdError {
    /// Not 64 characters.
    #[error("a peer id has 64 hexadecimal digits, this has {0} characters")]
    Length(usize),
    /// A character outside `0-9a-f`.
    #[error("character {0} of the peer id is not a lower-case hexadecimal digit")]
    Digit(usize),
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::BYTES {
            return Err(PeerIdError::Length(text.chars().count()));
        }
        let mut bytes = [0u8; 32];
        for (index, digit) in digits.iter().enumerate() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(PeerIdError::Digit(index + 1)),
            };
            bytes[index / 2] = bytes[index / 2] << 4 | value;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

/// A point in monotonic time: how long the agent has been running.
///
/// A newtype so that a span and a point in time cannot be mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(Duration);

impl Now {
    /// The agent's start.
    pub const START: Self = Self(Duration::ZERO);

    /// The point `since_start` after the agent's start.
    #[must_use]
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time since the agent's start.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The span from `earlier` to this point; zero if `earlier` lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Now {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn peer_id_text_round_trips(bytes in any::<[u8; 32]>()) {
            let peer = PeerId::from_bytes(bytes);
            let text = peer.to_string();
            prop_assert_eq!(text.parse::<PeerId>(), Ok(peer));
            prop_assert!(text.starts_with(&peer.short()));
        }

        #[test]
        fn peer_id_parser_takes_any_text(text in ".{0,80}") {
            if let Ok(peer) = text.parse::<PeerId>() {
                prop_assert_eq!(peer.to_string(), text);
            }
        }
    }

    #[test]
    fn peer_id_errors_name_the_place() {
        assert_eq!("ab".parse::<PeerId>(), Err(PeerIdError::Length(2)));
        let upper = "A".repeat(64);
        assert_eq!(upper.parse::<PeerId>(), Err(PeerIdError::Digit(1)));
    }

    #[test]
    fn time_never_wraps() {
        let late = Now::from_start(Duration::MAX);
        assert_eq!(late + Duration::from_secs(1), late);
        assert_eq!(Now::START.since(late), Duration::ZERO);
    }
}
