use haulout_archive::FormatError;
use std::{error::Error as StdError, fmt, io};

/// What went wrong, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No answer, or not now: worth another try.
    Unavailable,
    /// The blob or object does not exist, or is no longer stored.
    Missing,
    /// What was read is not what the archive promises.
    Corrupt,
    /// Somebody else published in the meantime.
    Conflict,
    /// The request is not allowed: frozen, no publisher, not enough coins, a limit.
    Refused,
    /// The local file system.
    Local,
}

/// A failure with what it was about.
#[derive(Debug)]
pub struct DepotError {
    /// What to do about it.
    pub kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl DepotError {
    /// A failure without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    pub(crate) fn corrupt(what: impl fmt::Display, error: FormatError) -> Self {
        Self::new(Kind::Corrupt, format!("{what} is not what the archive promises")).because(error)
    }

    pub(crate) fn local(what: impl fmt::Display, error: io::Error) -> Self {
        Self::new(Kind::Local, format!("cannot {what}")).because(error)
    }
}

impl fmt::Display for DepotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for DepotError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|error| error as &(dyn StdError + 'static))
    }
}
