//! What a person sees when a command fails: what failed, on what, and what to
//! do next.

use std::error::Error as StdError;
use std::fmt;

/// A failure that ends a command, with an optional hint on what to do next.
///
/// `Display` says only its own level; [`Failure::report`] prints the whole
/// chain and the hint.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of every command.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure that says `message` and nothing more.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, source: None }
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error that caused it.
    #[must_use]
    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Whether whoever read the output has enough: `haulout nar ls x | head` is no error.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Message and causes on one line, for logs and status pages.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    /// The text for standard error: message, causes, hint; no trailing newline.
    #[must_use]
    pub(crate) fn report(&self) -> String {
        let mut text = format!("error: {}", self.message);
        let mut cause = self.source.as_deref().map(|e| e as &dyn StdError);
        let mut last = self.message.clone();
        while let Some(error) = cause {
            let said = error.to_string();
            // Where one error is wrapped in another, both may say the same.
            if said != last {
                text.push_str(&format!("\n  because: {said}"));
            }
            last = said;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// Turns any error into a [`Failure`] that says what was being done.
pub(crate) trait Context<T> {
    /// `doing` names the action and the thing, e.g. "cannot read /etc/x".
    fn context(self, doing: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: StdError + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::new(doing()).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_the_cause_once_and_ends_with_the_hint() {
        let cause = std::io::Error::other("disk on fire");
        let failure = Failure::new("cannot read x").because(cause).hint("call someone");
        assert_eq!(
            failure.report(),
            "error: cannot read x\n  because: disk on fire\nhint: call someone"
        );
    }
}
