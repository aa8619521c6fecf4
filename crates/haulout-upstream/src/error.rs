//! What can go wrong at an upstream, sorted by what it means for the next request.

use std::time::Duration;

/// Why an upstream gave no usable answer.
///
/// Never a reason to tell Nix anything but "not here". [`Trouble::weight`] says what it does to
/// the upstream's standing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection: refused, no route, no such name, TLS failed.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time, or bytes that come too slowly.
    #[error("{0}")]
    Slow(&'static str),
    /// It asked to be left alone for a while.
    #[error("asks for fewer requests (status {status})")]
    RateLimited {
        /// 429 or 503.
        status: u16,
        /// What `Retry-After` said.
        retry_after: Option<Duration>,
    },
    /// A login page stands between us and it.
    #[error("something else answers in its place, such as a login page: {0}")]
    Portal(String),
    /// It wants a password that it was not given, or does not like the one it was given.
    #[error("access denied (status {0})")]
    Denied(u16),
    /// A status that means trouble on its side.
    #[error("status {0}")]
    Status(u16),
    /// What it sent is not what was asked for.
    #[error("sent nonsense: {0}")]
    Malformed(String),
    /// More bytes than there can be.
    #[error("sent more than the {0} bytes there can be")]
    TooLong(u64),
    /// Fewer bytes than there must be.
    #[error("ended early, at byte {0}")]
    Truncated(u64),
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(String),
    /// The file changed while it was being read.
    #[error("the file changed while it was being read")]
    Changed,
    /// It redirects to where nobody should be sent.
    #[error("redirects to {to}: {why}")]
    Redirect {
        /// The target.
        to: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// It is not asked at the moment.
    #[error("left alone for {} more s after: {why}", wait.as_secs())]
    LeftAlone {
        /// For how much longer.
        wait: Duration,
        /// What it did.
        why: String,
    },
    /// It cannot be used at all, whatever is asked.
    #[error("not usable: {0}")]
    Unusable(String),
    /// Too many questions at once.
    #[error("too many questions are open")]
    Busy,
    /// A file or directory of this machine cannot be read.
    #[error("cannot be read: {0}")]
    Io(String),
    /// The file is compressed in a way that is not known here.
    #[error("compression method {0} is not known here")]
    Compression(String),
    /// The answer did not come within the time the asker had.
    #[error("no answer within the budget")]
    OverBudget,
}

/// What a trouble does to an upstream's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing: it is about one file or about ourselves.
    None,
    /// One failure; several in a row open the circuit.
    Failure,
    /// The circuit opens at once, for at least this long if given.
    Stop(Option<Duration>),
}

/// How long an upstream that denies access, is no binary cache for this store, or is hidden behind
/// a login page is left alone. Somebody has to do something first, so asking often helps nobody.
const HOPELESS: Duration = Duration::from_secs(60);

impl Trouble {
    /// What it does to the upstream's standing.
    #[must_use]
    pub const fn weight(&self) -> Weight {
        match self {
            Self::Unreachable(_)
            | Self::Slow(_)
            | Self::Status(_)
            | Self::Broken(_)
            | Self::Redirect { .. }
            | Self::Malformed(_)
            | Self::TooLong(_)
            | Self::Truncated(_)
            | Self::Io(_) => Weight::Failure,
            Self::RateLimited { retry_after, .. } => Weight::Stop(*retry_after),
            Self::Portal(_) | Self::Denied(_) | Self::Unusable(_) => Weight::Stop(Some(HOPELESS)),
            Self::Changed
            | Self::LeftAlone { .. }
            | Self::Busy
            | Self::Compression(_)
            | Self::OverBudget => Weight::None,
        }
    }
}
