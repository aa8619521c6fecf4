//! The JSON half of the storage nodes' interface: envelopes, errors, statuses, confirmations.
//! (The binary half, in BCS, is `redstuff`'s.) Field names and order are those of real nodes.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use redstuff::messages::{SIGNATURE_BYTES, SignedMessage};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// `ErrorInfo.domain` of storage nodes.
pub const DOMAIN_STORAGE: &str = "storage.walrus.space";
/// `ErrorInfo.domain` of aggregators and publishers.
pub const DOMAIN_DAEMON: &str = "daemon.walrus.space";
/// `ErrorInfo.domain` of errors that every service has.
pub const DOMAIN_GLOBAL: &str = "global";

/// Reasons of storage nodes that a client acts upon.
pub mod reason {
    /// The node does not know the blob's metadata.
    pub const METADATA_NOT_FOUND: &str = "METADATA_NOT_FOUND";
    /// The node does not have the sliver.
    pub const SLIVER_NOT_FOUND: &str = "SLIVER_NOT_FOUND";
    /// The blob is on the node's deny list.
    pub const FORBIDDEN_BLOB: &str = "FORBIDDEN_BLOB";
    /// No such pair.
    pub const INDEX_OUT_OF_RANGE: &str = "INDEX_OUT_OF_RANGE";
    /// The pair's shard is not on this node (in the epoch the node believes in).
    pub const SHARD_NOT_ASSIGNED: &str = "SHARD_NOT_ASSIGNED";
    /// The node has not (yet) seen the blob's registration, or it has expired.
    pub const NOT_REGISTERED: &str = "NOT_REGISTERED";
    /// The node's buffer for blobs it has not seen registered is full.
    pub const CACHE_SATURATED: &str = "CACHE_SATURATED";
    /// The metadata is not that of the blob.
    pub const INVALID_METADATA: &str = "INVALID_METADATA";
    /// The blob is known to be inconsistent.
    pub const INVALID_BLOB: &str = "INVALID_BLOB";
    /// Not RS2.
    pub const UNSUPPORTED_ENCODING_TYPE: &str = "UNSUPPORTED_ENCODING_TYPE";
    /// The sliver is not the blob's.
    pub const INVALID_SLIVER: &str = "INVALID_SLIVER";
    /// The sliver's own index is not that of the path.
    pub const SLIVER_INDEX_MISMATCH: &str = "SLIVER_INDEX_MISMATCH";
    /// The sliver is larger than any can be.
    pub const SLIVER_TOO_LARGE: &str = "SLIVER_TOO_LARGE";
    /// The node does not have all its slivers yet.
    pub const MISSING_SLIVERS: &str = "MISSING_SLIVERS";
    /// The body is not of the type it should be, or not BCS.
    pub const INVALID_CONTENT_TYPE: &str = "INVALID_CONTENT_TYPE";
    /// No symbols of the request are the responsibility of the node's shards.
    pub const SYMBOL_NOT_PRESENT_AT_SHARDS: &str = "SYMBOL_NOT_PRESENT_AT_SHARDS";
}

/// `{"success":{"code":200,"data":…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success<T> {
    /// The content.
    pub success: SuccessBody<T>,
}

/// Inside [`Success`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessBody<T> {
    /// The HTTP status once more.
    pub code: u16,
    /// The answer.
    pub data: T,
}

impl<T> Success<T> {
    /// Wraps an answer.
    pub fn new(code: u16, data: T) -> Self {
        Self { success: SuccessBody { code, data } }
    }
}

/// `{"error":{…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The content.
    pub error: FailureBody,
}

/// Inside [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureBody {
    /// For instance `NOT_FOUND`.
    pub status: String,
    /// The HTTP status once more.
    pub code: u16,
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(default)]
    pub details: Vec<Detail>,
}

/// A detail of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "@type")]
pub enum Detail {
    /// Which error it is.
    ErrorInfo {
        /// One of [`reason`].
        reason: String,
        /// Who defines the reason.
        domain: String,
        /// More about it.
        #[serde(default)]
        metadata: BTreeMap<String, String>,
    },
    /// For the operator.
    #[serde(rename_all = "camelCase")]
    DebugInfo {
        /// Always empty.
        #[serde(default)]
        stack_entries: Vec<String>,
        /// A trace id.
        #[serde(default)]
        detail: String,
    },
    /// Something newer than this code.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Failure {
    /// An error as nodes answer it.
    #[must_use]
    pub fn new(status: &str, code: u16, message: &str, reason: &str, domain: &str) -> Self {
        let detail = Detail::ErrorInfo {
            reason: reason.to_owned(),
            domain: domain.to_owned(),
            metadata: BTreeMap::new(),
        };
        let (status, message) = (status.to_owned(), message.to_owned());
        Self { error: FailureBody { status, code, message, details: vec![detail] } }
    }

    /// The reason, if there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.error.details.iter().find_map(|detail| match detail {
            Detail::ErrorInfo { reason, .. } => Some(reason.as_str()),
            _ => None,
        })
    }
}

/// Whether a node has metadata or a sliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoredOnNode {
    /// It has not.
    Nonexistent,
    /// It has, until it learns of the registration or gives up.
    Buffered,
    /// It has.
    Stored,
}

/// The event behind a status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventId {
    /// The transaction, in base58.
    pub tx_digest: String,
    /// The event's number in it, in decimal.
    pub event_seq: String,
}

/// How many deletable objects of a blob there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct DeletableCounts {
    /// All.
    pub count_deletable_total: u32,
    /// Certified ones.
    pub count_deletable_certified: u32,
}

/// What a node believes a blob's state is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlobStatus {
    /// Not registered, or no longer.
    Nonexistent,
    /// Proven to be inconsistent.
    Invalid {
        /// The event.
        event: EventId,
    },
    /// Registered at least until `end_epoch`.
    #[serde(rename_all = "camelCase")]
    Permanent {
        /// The first epoch in which it is no longer stored.
        end_epoch: u32,
        /// Whether it was certified.
        is_certified: bool,
        /// The event of the registration or certification.
        status_event: EventId,
        /// Deletable objects of the same blob.
        deletable_counts: DeletableCounts,
        /// When it was first certified.
        initial_certified_epoch: Option<u32>,
    },
    /// Registered by deletable objects only.
    #[serde(rename_all = "camelCase")]
    Deletable {
        /// When it was first certified.
        initial_certified_epoch: Option<u32>,
        /// How many objects.
        deletable_counts: DeletableCounts,
    },
}

impl BlobStatus {
    /// When the blob was first certified, if it was.
    #[must_use]
    pub fn certified_epoch(&self) -> Option<u32> {
        match self {
            Self::Permanent { initial_certified_epoch, .. }
            | Self::Deletable { initial_certified_epoch, .. } => *initial_certified_epoch,
            Self::Nonexistent | Self::Invalid { .. } => None,
        }
    }
}

/// A node's signed word that it stores its part of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageConfirmation {
    /// The signed message.
    #[serde(with = "signed_json")]
    pub signed: SignedMessage,
}

/// A signed message that is the whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedAnswer(#[serde(with = "signed_json")] pub SignedMessage);

/// [`SignedMessage`] as JSON: both parts in standard base64.
mod signed_json {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Json {
        serialized_message: String,
        signature: String,
    }

    pub(super) fn serialize<S: Serializer>(
        message: &SignedMessage,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Json {
            serialized_message: BASE64.encode(&message.message),
            signature: BASE64.encode(&message.signature),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SignedMessage, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(D::Error::custom);
        let signature: [u8; SIGNATURE_BYTES] = bytes(&json.signature)?
            .try_into()
            .map_err(|_| D::Error::custom("a signature does not have 96 bytes"))?;
        Ok(SignedMessage { message: bytes(&json.serialized_message)?, signature })
    }
}

/// A node's account of itself: the part of the answer that has one meaning in all versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceHealth {
    /// The epoch the node is in.
    pub epoch: u32,
    /// Its BLS public key, in base64.
    pub public_key: String,
    /// For instance `Active`.
    pub node_status: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn json_is_as_real_nodes_write_it() {
        let error = r#"{"error":{"status":"NOT_FOUND","code":404,"message":"the requested sliver is unavailable","details":[{"@type":"ErrorInfo","reason":"SLIVER_NOT_FOUND","domain":"storage.walrus.space","metadata":{}}]}}"#;
        let parsed: Failure = serde_json::from_str(error).unwrap();
        assert_eq!(parsed.reason(), Some(reason::SLIVER_NOT_FOUND));
        assert_eq!(serde_json::to_string(&parsed).unwrap(), error);

        let status = r#"{"success":{"code":200,"data":{"permanent":{"endEpoch":21,"isCertified":true,"statusEvent":{"txDigest":"BemC","eventSeq":"0"},"deletableCounts":{"count_deletable_total":0,"count_deletable_certified":0},"initialCertifiedEpoch":1}}}}"#;
        let parsed: Success<BlobStatus> = serde_json::from_str(status).unwrap();
        assert_eq!(parsed.success.data.certified_epoch(), Some(1));
        assert_eq!(serde_json::to_string(&parsed).unwrap(), status);

        let deletable = r#"{"deletable":{"initialCertifiedEpoch":null,"deletableCounts":{"count_deletable_total":1,"count_deletable_certified":0}}}"#;
        let parsed: BlobStatus = serde_json::from_str(deletable).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), deletable);
        assert_eq!(
            serde_json::from_str::<BlobStatus>(r#""nonexistent""#).unwrap(),
            BlobStatus::Nonexistent
        );
        assert_eq!(serde_json::to_string(&StoredOnNode::Stored).unwrap(), r#""stored""#);
    }

    #[test]
    fn unknown_details_are_no_error() {
        let error = r#"{"error":{"status":"X","code":500,"message":"","details":[{"@type":"Help","links":[]},{"@type":"DebugInfo","stackEntries":[],"detail":"TraceID: 1"}]}}"#;
        let parsed: Failure = serde_json::from_str(error).unwrap();
        assert_eq!(parsed.reason(), None);
        assert_eq!(parsed.error.details[0], Detail::Unknown);
    }
}
