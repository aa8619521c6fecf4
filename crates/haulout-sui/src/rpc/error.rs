//! What a full node did not do.

use std::fmt;

use tonic::Code;

/// Characters of a node's own words that are repeated to people.
const WORDS_MAX: usize = 300;

/// The kind of a failure, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection, no answer in time, or one that says to come again.
    Unavailable,
    /// There is no such thing, or no longer.
    NotFound,
    /// The node does not offer this.
    Unsupported,
    /// The node refused the request.
    Refused,
    /// The answer is malformed, or fails its proof.
    Untrusted,
}

/// A request that brought no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// What to do about it.
    pub fault: Fault,
    message: String,
    abort: Option<Abort>,
}

/// Where a contract ended a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Abort {
    module: String,
    code: u64,
}

impl RpcError {
    /// A failure of `who`, in words.
    pub fn new(fault: Fault, who: &str, what: impl fmt::Display) -> Self {
        Self { fault, message: format!("{who}: {what}"), abort: None }
    }

    /// The same, because a contract said so.
    #[must_use]
    pub(super) fn aborted(mut self, module: &str, code: u64) -> Self {
        self.abort = Some(Abort { module: words(module), code });
        self
    }

    /// The abort code, if a contract's module of that name ended the transaction.
    #[must_use]
    pub fn abort_code(&self, module: &str) -> Option<u64> {
        self.abort.as_ref().filter(|abort| abort.module == module).map(|abort| abort.code)
    }

    /// From gRPC's own.
    pub(super) fn status(who: &str, doing: &str, status: &tonic::Status) -> Self {
        let fault = match status.code() {
            Code::NotFound => Fault::NotFound,
            Code::Unimplemented => Fault::Unsupported,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::Aborted => Fault::Refused,
            Code::DataLoss => Fault::Untrusted,
            _ => Fault::Unavailable,
        };
        let said = words(status.message());
        let mut cause = std::error::Error::source(status);
        let mut deepest = String::new();
        while let Some(error) = cause {
            deepest = words(&error.to_string());
            cause = error.source();
        }
        let deepest = if deepest.is_empty() || said.contains(&deepest) {
            String::new()
        } else {
            format!(" ({deepest})")
        };
        Self {
            fault,
            message: format!("{who}: {doing}: {:?}: {said}{deepest}", status.code()),
            abort: None,
        }
    }

    /// From all that were asked.
    pub(crate) fn none_of(doing: &str, faults: Vec<Self>) -> Self {
        // The most telling one: a refusal or an absence is an answer, silence is not.
        let order = |fault: Fault| match fault {
            Fault::Untrusted => 0,
            Fault::Refused => 1,
            Fault::NotFound => 2,
            Fault::Unsupported => 3,
            Fault::Unavailable => 4,
        };
        let fault =
            faults.iter().map(|e| e.fault).min_by_key(|&f| order(f)).unwrap_or(Fault::Unavailable);
        let abort = faults.iter().find_map(|error| error.abort.clone());
        let each: Vec<String> = faults.into_iter().map(|error| error.message).collect();
        let message = match each.as_slice() {
            [only] => only.clone(),
            _ => format!("no full node could {doing}: {}", each.join("; ")),
        };
        Self { fault, message, abort }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RpcError {}

/// A stranger's words: one line, no control characters, not too long.
pub(crate) fn words(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut said: String = text.chars().take(WORDS_MAX).map(clean).collect();
    if text.chars().nth(WORDS_MAX).is_some() {
        said.push('…');
    }
    said
}
