//! What this crate wants to know from a chain, and what it asks it to do.

use std::{fmt, future::Future, pin::Pin};

use redstuff::{
    BlobId, Digest,
    messages::{BlobPersistence, ConfirmationCertificate},
};

use crate::committee::{Committee, CommitteeView, ObjectId};

/// A boxed future, so that the traits can be used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What went wrong with the chain, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainErrorKind {
    /// No answer, or one that says to come again: worth another try.
    Unavailable,
    /// There is no such object or blob.
    NotFound,
    /// The answer is malformed or fails its proof.
    Untrusted,
    /// The transaction was refused: not enough coins, expired, wrong epoch.
    Refused,
    /// This chain cannot do that, for instance because no wallet is configured.
    Unsupported,
}

/// A failure of the chain.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ChainError {
    /// What to do about it.
    pub kind: ChainErrorKind,
    /// What failed, on what.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ChainError {
    /// A failure without a cause.
    pub fn new(kind: ChainErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

/// How a blob is named to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobName {
    /// By blob id. A chain without an index of blobs answers [`ChainErrorKind::Unsupported`].
    Id(BlobId),
    /// By the id of its `Blob` object.
    Object(ObjectId),
}

/// What the chain knows about a blob object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobState {
    /// The blob.
    pub blob: BlobId,
    /// The `Blob` object, where there is one.
    pub object: Option<ObjectId>,
    /// Length of the blob in bytes.
    pub size: u64,
    /// The epoch in which it was registered.
    pub registered_epoch: u32,
    /// The epoch in which it was first certified.
    pub certified_epoch: Option<u32>,
    /// The first epoch in which it is no longer stored.
    pub end_epoch: u32,
    /// Whether its owner can delete it before.
    pub deletable: bool,
}

/// Reads the chain. Answers may come from a cache that is no older than the chain's own notice of
/// a change; `refresh` passes it by.
pub trait ChainReader: Send + Sync + fmt::Debug {
    /// The committees. With `refresh` set they are read anew (implementations limit how often).
    fn committees(&self, refresh: bool) -> BoxFuture<'_, Result<CommitteeView, ChainError>>;

    /// A blob's state; `Ok(None)` if the chain is sure that there is none.
    fn blob(&self, name: BlobName) -> BoxFuture<'_, Result<Option<BlobState>, ChainError>>;
}

/// What is needed to register a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The blob.
    pub blob: BlobId,
    /// The Merkle root over the hash pairs of its metadata.
    pub root_hash: Digest,
    /// Length of the blob in bytes.
    pub unencoded_length: u64,
    /// Billed size in bytes: what the `Storage` object has to have.
    pub encoded_length: u64,
    /// For how many epochs, the current one included (1 to 53).
    pub epochs: u32,
    /// Whether its owner can delete it before.
    pub deletable: bool,
}

/// A registered blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Its `Blob` object.
    pub object: ObjectId,
    /// The epoch in which it was registered.
    pub epoch: u32,
    /// The first epoch in which it is no longer stored.
    pub end_epoch: u32,
    /// Whether its owner can delete it before.
    pub deletable: bool,
    /// The epoch in which it was certified, if it was.
    pub certified_epoch: Option<u32>,
}

impl Registered {
    /// What nodes sign for this object.
    #[must_use]
    pub fn persistence(&self) -> BlobPersistence {
        match self.deletable {
            true => BlobPersistence::Deletable(self.object.0),
            false => BlobPersistence::Permanent,
        }
    }
}

/// A certified blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The epoch in which it was certified.
    pub epoch: u32,
    /// The transaction, in the chain's text form; empty if it was certified by an earlier write.
    pub transaction: String,
}

/// Changes the chain, in the name and at the cost of a wallet.
pub trait Registrar: Send + Sync + fmt::Debug {
    /// A blob object of this wallet for the same content and kind that lasts at least as long, if there is one:
    /// what a write that was interrupted goes on with instead of paying again.
    fn existing<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Option<Registered>, ChainError>>;

    /// Buys storage and registers the blob.
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Registered, ChainError>>;

    /// Certifies a registered blob. `bitmap` is the certificate's signers in the contract's form.
    fn certify<'a>(
        &'a self,
        object: ObjectId,
        certificate: &'a ConfirmationCertificate,
        bitmap: &'a [u8],
    ) -> BoxFuture<'a, Result<Certified, ChainError>>;
}

/// A chain that is data: one view of the committees, no blobs. For tests, and for networks whose
/// committee is given in a file.
#[derive(Debug, Clone)]
pub struct StaticChain(pub CommitteeView);

impl StaticChain {
    /// A chain with one committee that does not change.
    #[must_use]
    pub fn new(committee: Committee) -> Self {
        Self(CommitteeView::steady(committee))
    }
}

impl ChainReader for StaticChain {
    fn committees(&self, _refresh: bool) -> BoxFuture<'_, Result<CommitteeView, ChainError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }

    fn blob(&self, _name: BlobName) -> BoxFuture<'_, Result<Option<BlobState>, ChainError>> {
        let message = "a committee from a file knows no blobs";
        Box::pin(async move { Err(ChainError::new(ChainErrorKind::Unsupported, message)) })
    }
}
