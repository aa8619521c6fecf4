//! One storage node: its routes, with answers as types. Nothing here is verified against a blob.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::{Method, StatusCode};
use redstuff::{
    Axis, AxisKind, BlobId, DecodingSymbols, InconsistencyProof, Metadata, MetadataWithId,
    PairIndex, RecoverySymbols, ShardCount, SliverIndex, UnverifiedSliver,
    bcs::Wire,
    messages::{BlobPersistence, SignedMessage},
};
use serde::de::DeserializeOwned;

use crate::{
    ObjectId,
    committee::{StorageNode, split_address},
    http::{Answer, Ask, HttpError, Link, Opened},
    limits::{JSON_BODY_MAX, MESSAGE_CHARS_MAX},
    wire::{
        BlobStatus, Failure, ServiceHealth, SignedAnswer, StorageConfirmation, StoredOnNode,
        Success, reason,
    },
};

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The node answered with an error.
    #[error("HTTP {status}{}: {message}", .reason.as_deref().map(|r| format!(" {r}")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// The machine-readable reason.
        reason: Option<String>,
        /// The text for people, shortened and without control characters.
        message: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The node answered something that is not what the route answers.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

/// What an error means for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The node does not have it.
    Missing,
    /// The node must not give it away.
    Forbidden,
    /// The node thinks that the shard is somebody else's: one of us is in another epoch.
    WrongShard,
    /// The node has not seen the registration, or has seen its end.
    NotRegistered,
    /// The node does not have all its slivers.
    Incomplete,
    /// Come again, after this long if it said so.
    Busy(Option<Duration>),
    /// The node cannot be reached, or the transfer broke off.
    Unreachable,
    /// The node said something that is never right.
    Wrong,
}

impl NodeError {
    /// What to make of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Http(HttpError::Oversize { .. }) | Self::Malformed(_) => Verdict::Wrong,
            Self::Http(_) => Verdict::Unreachable,
            Self::Refused { status, reason, retry_after, .. } => {
                match (reason.as_deref(), *status) {
                    (
                        Some(reason::SHARD_NOT_ASSIGNED | reason::SYMBOL_NOT_PRESENT_AT_SHARDS),
                        _,
                    ) => Verdict::WrongShard,
                    (Some(reason::NOT_REGISTERED), _) => Verdict::NotRegistered,
                    (Some(reason::MISSING_SLIVERS), _) => Verdict::Incomplete,
                    (Some(reason::METADATA_NOT_FOUND | reason::SLIVER_NOT_FOUND), _) => {
                        Verdict::Missing
                    }
                    (Some(reason::CACHE_SATURATED), _) | (_, 429 | 503 | 504) => {
                        Verdict::Busy(*retry_after)
                    }
                    (Some(reason::FORBIDDEN_BLOB), _) | (_, 451) => Verdict::Forbidden,
                    (_, 404) => Verdict::Missing,
                    // Not in the service's own words, it is of something in front of it: a redirection, a wall.
                    (_, 500..) | (None, _) => Verdict::Unreachable,
                    _ => Verdict::Wrong,
                }
            }
        }
    }

    fn of_answer(answer: &Answer) -> Self {
        let parsed: Option<Failure> = serde_json::from_slice(&answer.body).ok();
        let reason = parsed.as_ref().and_then(Failure::reason);
        let message = match &parsed {
            Some(failure) => failure.error.message.clone(),
            None => String::from_utf8_lossy(&answer.body).into_owned(),
        };
        Self::Refused {
            status: answer.status.as_u16(),
            reason: reason.filter(|reason| is_reason(reason)).map(str::to_owned),
            message: printable(&message),
            retry_after: answer.retry_after,
        }
    }
}

/// Reasons are words of capitals; anything else does not reach a log.
fn is_reason(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|c| c.is_ascii_uppercase() || c == b'_')
}

/// A node's text, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A sliver with the bytes it came in, which a cache keeps as they are.
#[derive(Debug, Clone)]
pub struct ReceivedSliver<A: Axis> {
    /// The sliver; shares the memory.
    pub sliver: UnverifiedSliver<A>,
    /// The body of the answer.
    pub raw: Bytes,
}

/// The BCS of a sliver as it arrives; ends after the first error. Nothing of it is checked.
pub type SliverBody = BoxStream<'static, Result<Bytes, NodeError>>;

/// What a node said to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was new.
    Created,
    /// It is kept until the node sees the registration.
    Buffered,
    /// It was there (older nodes say so of new slivers too).
    Present,
}

/// A storage node that can be asked.
#[derive(Debug)]
pub struct NodeClient {
    link: Link,
}

/// The names of the axes in paths.
fn axis_name(axis: AxisKind) -> &'static str {
    match axis {
        AxisKind::Primary => "primary",
        AxisKind::Secondary => "secondary",
    }
}

/// Bytes of BCS around a sliver's symbols: a length of up to five bytes, symbol size, index.
const SLIVER_OVERHEAD: usize = 9;

/// Bytes of a recovery symbol around its data, beside the proof's nodes (33 bytes each, at most 16).
const SYMBOL_OVERHEAD: usize = 16 + 16 * 33;

impl NodeClient {
    /// A client of `node`. Connects at the first request.
    ///
    /// # Errors
    /// The address or the key cannot be used.
    pub fn new(node: &StorageNode) -> Result<Self, NodeError> {
        let bad = || HttpError::Dial(Arc::from("the address is not host:port"));
        let (host, port) = split_address(&node.address).ok_or_else(bad)?;
        Ok(Self { link: Link::new(host, port, &node.network_public_key)? })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        answer_max: usize,
    ) -> Result<Answer, NodeError> {
        let answer = self.link.ask(Ask { method, path, body, answer_max }).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(NodeError::of_answer(&answer)),
        }
    }

    async fn binary<T: Wire>(
        &self,
        path: &str,
        answer_max: usize,
    ) -> Result<(T, Bytes), NodeError> {
        let answer = self.ask(Method::GET, path, None, answer_max).await?;
        if !answer.is_binary() {
            return Err(NodeError::Malformed("not a binary body".to_owned()));
        }
        match T::from_shared_bcs(&answer.body) {
            Ok(value) => Ok((value, answer.body)),
            Err(error) => Err(NodeError::Malformed(error.to_string())),
        }
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, NodeError> {
        let answer = self.ask(Method::GET, path, None, JSON_BODY_MAX).await?;
        parse_json(&answer)
    }

    /// A blob's metadata, as it came and parsed.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn metadata(
        &self,
        n: ShardCount,
        blob: &BlobId,
    ) -> Result<(MetadataWithId, Bytes), NodeError> {
        // Id, version, encoding, length, count; then 66 bytes for each pair.
        let limit = 32 + 1 + 1 + 8 + 3 + 66 * n.as_usize();
        self.binary(&format!("/v1/blobs/{blob}/metadata"), limit).await
    }

    /// Whether the node has the metadata.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn metadata_status(&self, blob: &BlobId) -> Result<StoredOnNode, NodeError> {
        self.json(&format!("/v1/blobs/{blob}/metadata/status")).await
    }

    /// A sliver, by the pair it belongs to.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn sliver<A: Axis>(
        &self,
        metadata: &Metadata,
        pair: PairIndex,
    ) -> Result<ReceivedSliver<A>, NodeError> {
        let path = sliver_path::<A>(metadata.id(), pair);
        let limit = metadata.sliver_len::<A>() + SLIVER_OVERHEAD;
        let (sliver, raw) = self.binary(&path, limit).await?;
        Ok(ReceivedSliver { sliver, raw })
    }

    /// The same as it arrives, unparsed.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn sliver_body<A: Axis>(
        &self,
        metadata: &Metadata,
        pair: PairIndex,
    ) -> Result<SliverBody, NodeError> {
        let path = &sliver_path::<A>(metadata.id(), pair);
        let answer_max = metadata.sliver_len::<A>() + SLIVER_OVERHEAD;
        let ask = Ask { method: Method::GET, path, body: None, answer_max };
        let arriving = match self.link.open(ask).await? {
            Opened::Success(arriving) => arriving,
            Opened::Refused(answer) => return Err(NodeError::of_answer(&answer)),
        };
        let pieces = stream::unfold(Some(arriving), |arriving| async {
            let mut arriving = arriving?;
            match arriving.next().await {
                Ok(None) => None,
                Ok(Some(bytes)) => Some((Ok(bytes), Some(arriving))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(pieces.boxed())
    }

    /// Whether the node has a sliver.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn sliver_status<A: Axis>(
        &self,
        blob: &BlobId,
        pair: PairIndex,
    ) -> Result<StoredOnNode, NodeError> {
        self.json(&format!("{}/status", sliver_path::<A>(blob, pair))).await
    }

    /// What the node believes the blob's state is.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn status(&self, blob: &BlobId) -> Result<BlobStatus, NodeError> {
        self.json(&format!("/v1/blobs/{blob}/status")).await
    }

    /// The node's account of itself.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn health(&self) -> Result<ServiceHealth, NodeError> {
        self.json("/v1/health").await
    }

    /// The node's signed word that it stores its part of the blob.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn confirmation(
        &self,
        blob: &BlobId,
        persistence: &BlobPersistence,
    ) -> Result<SignedMessage, NodeError> {
        let kind = match persistence {
            BlobPersistence::Permanent => "permanent".to_owned(),
            BlobPersistence::Deletable(object) => format!("deletable/{}", ObjectId(*object)),
        };
        let path = format!("/v1/blobs/{blob}/confirmation/{kind}");
        let confirmation: StorageConfirmation = self.json(&path).await?;
        Ok(confirmation.signed)
    }

    /// The symbols, with proofs, that the node's slivers have for a sliver to rebuild, and the bytes of the
    /// answer. `shards` is how many shards the node has in this epoch.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn recovery_symbols<T: Axis>(
        &self,
        metadata: &Metadata,
        target: SliverIndex<T>,
        shards: usize,
    ) -> Result<(RecoverySymbols, usize), NodeError> {
        let (blob, kind) = (metadata.id(), axis_name(T::KIND));
        let path =
            format!("/v1/blobs/{blob}/recoverySymbols?targetSliver={target}&targetType={kind}");
        let symbol = metadata.symbol_size().as_usize() + SYMBOL_OVERHEAD;
        let (symbols, raw) = self.binary(&path, 3 + shards_at_most(shards) * symbol).await?;
        Ok((symbols, raw.len()))
    }

    /// The symbols, without proofs, that the node's slivers have for systematic slivers to rebuild.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn decoding_symbols<T: Axis>(
        &self,
        metadata: &Metadata,
        targets: &[SliverIndex<T>],
        shards: usize,
    ) -> Result<DecodingSymbols, NodeError> {
        let mut path = format!("/v1/blobs/{}/decodingSymbols?", metadata.id());
        for target in targets {
            let _ = write!(path, "targetSlivers={target}&");
        }
        let _ = write!(path, "targetType={}", axis_name(T::KIND));
        let symbol = metadata.symbol_size().as_usize() + SYMBOL_OVERHEAD;
        let most = 3 + targets.len() * (5 + shards_at_most(shards) * symbol);
        Ok(self.binary(&path, most).await?.0)
    }

    async fn upload(&self, path: &str, body: Bytes) -> Result<Uploaded, NodeError> {
        let answer = self.ask(Method::PUT, path, Some(body), JSON_BODY_MAX).await?;
        let _: String = parse_json(&answer)?;
        Ok(match answer.status {
            StatusCode::CREATED => Uploaded::Created,
            StatusCode::ACCEPTED => Uploaded::Buffered,
            _ => Uploaded::Present,
        })
    }

    /// Gives the node a blob's metadata. `body` is its BCS without the blob id.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn put_metadata(&self, blob: &BlobId, body: Bytes) -> Result<Uploaded, NodeError> {
        self.upload(&format!("/v1/blobs/{blob}/metadata"), body).await
    }

    /// Gives the node a sliver. `body` is its BCS.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn put_sliver<A: Axis>(
        &self,
        blob: &BlobId,
        pair: PairIndex,
        body: Bytes,
    ) -> Result<Uploaded, NodeError> {
        self.upload(&sliver_path::<A>(blob, pair), body).await
    }

    /// Shows the node that a blob is inconsistent; it signs that it is.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn inconsistency_proof<A: Axis>(
        &self,
        blob: &BlobId,
        proof: &InconsistencyProof<A>,
    ) -> Result<SignedMessage, NodeError> {
        let path = format!("/v1/blobs/{blob}/inconsistencyProof/{}", axis_name(A::KIND));
        let body = Some(proof.to_bcs().into());
        let answer = self.ask(Method::POST, &path, body, JSON_BODY_MAX).await?;
        parse_json::<SignedAnswer>(&answer).map(|SignedAnswer(signed)| signed)
    }
}

/// Shards that a node may still have slivers of, beside those of this epoch: what it gave up it keeps for a while.
fn shards_at_most(shards: usize) -> usize {
    2 * shards + 16
}

fn sliver_path<A: Axis>(blob: &BlobId, PairIndex(pair): PairIndex) -> String {
    format!("/v1/blobs/{blob}/slivers/{pair}/{}", axis_name(A::KIND))
}

fn parse_json<T: DeserializeOwned>(answer: &Answer) -> Result<T, NodeError> {
    match serde_json::from_slice::<Success<T>>(&answer.body) {
        Ok(success) => Ok(success.success.data),
        Err(error) => Err(NodeError::Malformed(printable(&error.to_string()))),
    }
}
