//! Answers of a node: bodies, JSON envelopes and errors as real nodes write them.

use bytes::Bytes;
use haulout_walrus::wire::{DOMAIN_GLOBAL, DOMAIN_STORAGE, Failure, Success, reason};
use serde::Serialize;

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Its `Content-Type`; none for an empty body.
    pub(crate) content_type: Option<&'static str>,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// BCS.
    #[must_use]
    pub(crate) fn bcs(body: impl Into<Bytes>) -> Self {
        let (content_type, headers) = (Some("application/octet-stream"), Vec::new());
        Self { status: 200, content_type, headers, body: body.into() }
    }

    /// JSON.
    #[must_use]
    pub(crate) fn json(status: u16, value: &impl Serialize) -> Self {
        // Values of these types always have a JSON form.
        let body = serde_json::to_vec(value).unwrap_or_default().into();
        Self { status, content_type: Some("application/json"), headers: Vec::new(), body }
    }

    /// `{"success":…}` with status 200.
    #[must_use]
    pub(crate) fn success(data: impl Serialize) -> Self {
        Self::success_code(200, data)
    }

    /// `{"success":…}` with another status.
    #[must_use]
    pub(crate) fn success_code(code: u16, data: impl Serialize) -> Self {
        Self::json(code, &Success::new(code, data))
    }

    /// Text.
    #[must_use]
    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        let (content_type, headers) = (Some("text/plain; charset=utf-8"), Vec::new());
        Self { status, content_type, headers, body: text.into().into() }
    }

    /// No body.
    #[must_use]
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A refusal in the service's own form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: Status,
    reason: &'static str,
    domain: &'static str,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    InvalidArgument,
    FailedPrecondition,
    PermissionDenied,
    NotFound,
    LegalReasons,
    Internal,
    Unavailable,
}

impl Status {
    fn parts(self) -> (&'static str, u16) {
        match self {
            Self::InvalidArgument => ("INVALID_ARGUMENT", 400),
            Self::FailedPrecondition => ("FAILED_PRECONDITION", 400),
            Self::PermissionDenied => ("PERMISSION_DENIED", 403),
            Self::NotFound => ("NOT_FOUND", 404),
            Self::LegalReasons => ("UNAVAILABLE_FOR_LEGAL_REASONS", 451),
            Self::Internal => ("INTERNAL", 500),
            Self::Unavailable => ("UNAVAILABLE", 503),
        }
    }
}

impl Refusal {
    fn new(status: Status, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, domain: DOMAIN_STORAGE, message: message.into() }
    }

    /// The same, said in another context.
    pub(crate) fn within(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    pub(crate) fn index_out_of_range(index: u16, shards: u16) -> Self {
        let message = format!(
            "the requested sliver index is out of range: requires 0 <= index ({index}) < {shards}"
        );
        Self::new(Status::InvalidArgument, reason::INDEX_OUT_OF_RANGE, message)
    }

    pub(crate) fn symbol_out_of_range(index: u16, shards: u16) -> Self {
        let message = format!(
            "the requested recovery symbol is invalid for the system: \
             requires 0 <= index ({index}) < {shards}"
        );
        Self::new(Status::InvalidArgument, reason::INDEX_OUT_OF_RANGE, message)
    }

    pub(crate) fn target_out_of_range(index: u16, sources: usize) -> Self {
        let message = format!(
            "the requested recovery symbol is out of range: \
             target sliver {index} is not one of the {sources} source slivers"
        );
        Self::new(Status::InvalidArgument, "RECOVERY_SYMBOL_OUT_OF_RANGE", message)
    }

    pub(crate) fn shard_not_assigned(shard: u16, epoch: u32) -> Self {
        let message = format!("shard {shard} is not assigned to this node in epoch {epoch}");
        Self::new(Status::FailedPrecondition, reason::SHARD_NOT_ASSIGNED, message)
    }

    pub(crate) fn metadata_not_found() -> Self {
        let message = "the requested metadata is unavailable";
        Self::new(Status::NotFound, reason::METADATA_NOT_FOUND, message)
    }

    pub(crate) fn metadata_blocked() -> Self {
        let message = "the requested metadata is blocked";
        Self::new(Status::LegalReasons, reason::FORBIDDEN_BLOB, message)
    }

    pub(crate) fn metadata_required() -> Self {
        let message = "blob metadata is required but missing";
        Self::new(Status::FailedPrecondition, reason::METADATA_NOT_FOUND, message)
    }

    pub(crate) fn sliver_not_found() -> Self {
        let message = "the requested sliver is unavailable";
        Self::new(Status::NotFound, reason::SLIVER_NOT_FOUND, message)
    }

    pub(crate) fn sliver_blocked() -> Self {
        let message = "the requested sliver is forbidden";
        Self::new(Status::LegalReasons, reason::FORBIDDEN_BLOB, message)
    }

    pub(crate) fn not_registered() -> Self {
        let message = "the blob has not been registered or has already expired";
        Self::new(Status::FailedPrecondition, reason::NOT_REGISTERED, message)
    }

    pub(crate) fn missing_slivers() -> Self {
        let message = "the required slivers are not all stored";
        Self::new(Status::FailedPrecondition, reason::MISSING_SLIVERS, message)
    }

    pub(crate) fn invalid_metadata(why: impl std::fmt::Display) -> Self {
        let message = format!("the provided metadata failed to verify: {why}");
        Self::new(Status::InvalidArgument, reason::INVALID_METADATA, message)
    }

    pub(crate) fn invalid_blob(event: &str) -> Self {
        let message = format!("the blob for this metadata is invalid: {event}");
        Self::new(Status::FailedPrecondition, reason::INVALID_BLOB, message)
    }

    pub(crate) fn unsupported_encoding() -> Self {
        let message = "unsupported encoding type, supported types are: [RS2]";
        Self::new(Status::InvalidArgument, reason::UNSUPPORTED_ENCODING_TYPE, message)
    }

    pub(crate) fn invalid_sliver(why: impl std::fmt::Display) -> Self {
        let message = format!("the provided sliver is invalid: {why}");
        Self::new(Status::InvalidArgument, reason::INVALID_SLIVER, message)
    }

    pub(crate) fn sliver_index_mismatch(found: u16, expected: u16) -> Self {
        let message = format!("the sliver has index {found}, the path names sliver {expected}");
        Self::new(Status::InvalidArgument, reason::SLIVER_INDEX_MISMATCH, message)
    }

    pub(crate) fn content_type() -> Self {
        let message = "Expected request with `Content-Type: application/octet-stream`";
        Self::new(Status::InvalidArgument, reason::INVALID_CONTENT_TYPE, message)
    }

    pub(crate) fn body_too_long() -> Self {
        let message = "Failed to buffer the request body: length limit exceeded";
        Self::new(Status::InvalidArgument, reason::INVALID_CONTENT_TYPE, message)
    }

    pub(crate) fn not_bcs() -> Self {
        let message = "unable to decode request body as BCS";
        Self::new(Status::InvalidArgument, reason::INVALID_CONTENT_TYPE, message)
    }

    pub(crate) fn symbol_elsewhere() -> Self {
        let message =
            "the requested recovery symbol is not the responsibility of this node's shards";
        Self::new(Status::FailedPrecondition, reason::SYMBOL_NOT_PRESENT_AT_SHARDS, message)
    }

    pub(crate) fn no_targets() -> Self {
        let message = "at least one target sliver must be specified";
        Self::new(Status::FailedPrecondition, "NO_TARGET_SLIVERS_SPECIFIED", message)
    }

    pub(crate) fn invalid_proof(why: impl std::fmt::Display) -> Self {
        Self::new(Status::InvalidArgument, "INVALID_PROOF", why.to_string())
    }

    pub(crate) fn sync_unauthorized() -> Self {
        let message = "the client is not authorized to perform the sync shard operation as it is \
                       not a storage node in the current committee";
        Self::new(Status::PermissionDenied, "REQUEST_UNAUTHORIZED", message)
    }

    pub(crate) fn sync_message(why: impl std::fmt::Display) -> Self {
        let message = format!("verification of the request to start the sync failed: {why}");
        Self::new(Status::InvalidArgument, "MESSAGE_VERIFICATION_FAILED", message)
    }

    pub(crate) fn sync_epoch(request: u32, server: u32) -> Self {
        let message = format!(
            "the request's epoch must be the same as the server's epoch: the request's epoch \
             ({request}) is invalid, server epoch {server}"
        );
        Self::new(Status::InvalidArgument, "INVALID_EPOCH", message)
    }

    pub(crate) fn sync_count(asked: u64, max: u64) -> Self {
        let message = format!("the sliver count {asked} exceeds the limit of {max}");
        Self::new(Status::InvalidArgument, "SLIVER_COUNT_EXCEEDS_LIMIT", message)
    }

    pub(crate) fn unavailable() -> Self {
        let message = "the service is currently unavailable";
        Self { domain: DOMAIN_GLOBAL, ..Self::new(Status::Unavailable, "UNAVAILABLE", message) }
    }

    /// Details are for the log: real nodes tell nobody.
    pub(crate) fn internal() -> Self {
        let message = "an internal error has occurred, please report it";
        Self { domain: DOMAIN_GLOBAL, ..Self::new(Status::Internal, "INTERNAL_ERROR", message) }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = refusal.status.parts();
        let Refusal { reason, domain, message, .. } = refusal;
        Self::json(code, &Failure::new(status, code, &message, reason, domain))
    }
}
