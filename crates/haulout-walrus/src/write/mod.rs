//! Writing blobs: register, upload to a quorum, collect confirmations, certify.

mod certificate;
mod journal;
mod tally;
mod upload;

use std::{fmt, path::PathBuf, sync::Arc};

use redstuff::{BlobId, EncodedBlob, messages::ConfirmationCertificate};

pub use certificate::check_certificate;
pub use journal::{Journal, JournalError};

use crate::{
    Certified, ChainError, ChainErrorKind, Client, Committee, Progress, Registered, Registrar,
    Registration,
    limits::{CERTIFY_TRIES, REGISTRATION_LEAD, REUPLOAD_ROUNDS},
};

/// How to write.
#[derive(Clone)]
pub struct StoreOptions {
    /// For how many epochs, the current one included.
    pub epochs: u32,
    /// Whether the owner can delete the blob before.
    pub deletable: bool,
    /// Where to keep what was done so far, so that a write that is killed goes on where it was.
    pub journal: Option<PathBuf>,
    /// Told of bytes that nodes took.
    pub progress: Option<Progress>,
}

impl StoreOptions {
    /// Permanent storage for `epochs` epochs, without a journal.
    #[must_use]
    pub fn permanent(epochs: u32) -> Self {
        Self { epochs, deletable: false, journal: None, progress: None }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("epochs", &self.epochs)
            .field("deletable", &self.deletable)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

/// A blob that is stored and certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The blob.
    pub blob: BlobId,
    /// Its object on chain.
    pub registered: Registered,
    /// Its certification.
    pub certified: Certified,
    /// Shards of the nodes that confirmed.
    pub confirmed_shards: u32,
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The chain failed at something.
    #[error("cannot {doing}")]
    Chain {
        /// At what.
        doing: &'static str,
        /// How.
        #[source]
        source: ChainError,
    },
    /// The blob was encoded for another network.
    #[error("the blob was encoded for {encoded} shards, but the network has {shards}")]
    OtherNetwork {
        /// Shards it was encoded for.
        encoded: redstuff::ShardCount,
        /// Shards of the network.
        shards: redstuff::ShardCount,
    },
    /// The blob is too large to be billed.
    #[error(transparent)]
    TooLarge(#[from] redstuff::TooLarge),
    /// Too few nodes took everything.
    #[error("nodes with only {reached} of {shards} shards stored blob {blob}, {needed} are needed{}", first_failure(.failure))]
    NoQuorum {
        /// The blob.
        blob: BlobId,
        /// Shards reached.
        reached: u32,
        /// Shards needed.
        needed: u32,
        /// All shards.
        shards: u32,
        /// What one of the nodes said.
        failure: Option<String>,
    },
    /// Too few nodes confirmed.
    #[error("nodes with only {reached} of {shards} shards confirmed blob {blob}, {needed} are needed{}", first_failure(.failure))]
    NoCertificate {
        /// The blob.
        blob: BlobId,
        /// Shards reached.
        reached: u32,
        /// Shards needed.
        needed: u32,
        /// All shards.
        shards: u32,
        /// What one of the nodes said.
        failure: Option<String>,
    },
    /// The epoch changed while nodes were asked.
    #[error("the epoch changed during the write of blob {0}")]
    EpochChanged(BlobId),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A worker thread died.
    #[error("a worker thread failed")]
    Worker,
}

fn first_failure(failure: &Option<String>) -> String {
    failure.as_ref().map(|text| format!("; one said: {text}")).unwrap_or_default()
}

impl WriteError {
    fn chain(doing: &'static str) -> impl FnOnce(ChainError) -> Self {
        move |source| Self::Chain { doing, source }
    }
}

/// One write.
struct Write<'a> {
    client: &'a Client,
    registrar: &'a dyn Registrar,
    encoded: Arc<EncodedBlob>,
    options: &'a StoreOptions,
    journal: Journal,
}

impl Client {
    /// Stores a blob. With a journal, a write that was killed goes on where it was: what was
    /// registered is not paid for again, what nodes have is not sent again.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn store(
        &self,
        registrar: &dyn Registrar,
        encoded: Arc<EncodedBlob>,
        options: &StoreOptions,
    ) -> Result<Stored, WriteError> {
        let journal = match &options.journal {
            Some(path) => Journal::open(path, encoded.metadata(), options.deletable)?,
            None => Journal::in_memory(encoded.metadata(), options.deletable),
        };
        Write { client: self, registrar, encoded, options, journal }.run().await
    }
}

impl Write<'_> {
    fn blob(&self) -> BlobId {
        *self.encoded.metadata().id()
    }

    async fn run(mut self) -> Result<Stored, WriteError> {
        let mut tries = 1;
        loop {
            let view = self.client.committees(tries > 1).await;
            let view = view.map_err(WriteError::chain("read the committee"))?;
            let (encoded, shards) = (self.encoded.metadata().shards(), view.current.n_shards);
            if encoded != shards {
                return Err(WriteError::OtherNetwork { encoded, shards });
            }
            let registered = self.registered(view.epoch).await?;
            if let Some(stored) = self.finished(registered)? {
                return Ok(stored);
            }
            match self.certify(&view.current, &registered).await {
                Ok(stored) => return Ok(stored),
                Err(error) if is_about_epochs(&error) => {
                    // Perhaps because a write that was killed got as far as that.
                    if let Ok(Some(existing)) = self.existing().await
                        && let Some(stored) = self.finished(existing)?
                    {
                        return Ok(stored);
                    }
                    if tries >= CERTIFY_TRIES {
                        return Err(error);
                    }
                    tracing::info!(%error, "collecting confirmations of the new epoch");
                    self.journal.forget_certificate()?;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is certified, by this write or an earlier one, needs nothing more.
    fn finished(&mut self, registered: Registered) -> Result<Option<Stored>, WriteError> {
        let certified = match (self.journal.certified(), registered.certified_epoch) {
            (Some(certified), _) => certified.clone(),
            (None, Some(epoch)) => {
                // By which transaction is not known here.
                let certified = Certified { epoch, transaction: String::new() };
                self.journal.set_registered(registered)?;
                self.journal.set_certified(certified.clone())?;
                certified
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(self.stored(registered, certified, 0)))
    }

    fn stored(&self, registered: Registered, certified: Certified, confirmed: u32) -> Stored {
        Stored { blob: self.blob(), registered, certified, confirmed_shards: confirmed }
    }

    fn registration(&self) -> Result<Registration, WriteError> {
        let metadata = self.encoded.metadata();
        Ok(Registration {
            blob: *metadata.id(),
            root_hash: *metadata.root_hash(),
            unencoded_length: metadata.unencoded_length(),
            encoded_length: metadata.shards().encoded_length(metadata.unencoded_length())?,
            epochs: self.options.epochs,
            deletable: self.options.deletable,
        })
    }

    /// What the chain has of this wallet that is as good as a new registration.
    async fn existing(&self) -> Result<Option<Registered>, WriteError> {
        let registration = self.registration()?;
        let existing = self.registrar.existing(&registration).await;
        existing.map_err(WriteError::chain("look for an earlier registration"))
    }

    /// The registration from the journal or the wallet, or a new one.
    async fn registered(&mut self, epoch: u32) -> Result<Registered, WriteError> {
        if let Some(registered) = self.journal.registered(epoch) {
            return Ok(registered);
        }
        if let Some(registered) = self.existing().await? {
            self.journal.set_registered(registered)?;
            return Ok(registered);
        }
        let registration = self.registration()?;
        let new = self.registrar.register(&registration).await;
        let new = new.map_err(WriteError::chain("register the blob"))?;
        self.journal.set_registered(new)?;
        tokio::time::sleep(REGISTRATION_LEAD).await;
        Ok(new)
    }

    /// Uploads, collects a certificate and certifies.
    async fn certify(
        &mut self,
        committee: &Committee,
        registered: &Registered,
    ) -> Result<Stored, WriteError> {
        let certificate = match self.journal.certificate(committee.epoch) {
            Some(certificate) => certificate.clone(),
            None => {
                let certificate = self.confirmed(committee, registered).await?;
                self.journal.set_certificate(committee.epoch, certificate.clone())?;
                certificate
            }
        };
        let bitmap = redstuff::messages::signers_bitmap(&certificate.signers);
        let certifying = self.registrar.certify(registered.object, &certificate, &bitmap);
        let certified = certifying.await.map_err(WriteError::chain("certify the blob"))?;
        self.journal.set_certified(certified.clone())?;
        let weight = committee.weight(certificate.signers.iter().map(|&i| i.into()));
        Ok(self.stored(*registered, certified, weight))
    }

    /// Uploads to a quorum and collects its confirmations; nodes that then miss slivers get them
    /// again.
    async fn confirmed(
        &self,
        committee: &Committee,
        registered: &Registered,
    ) -> Result<ConfirmationCertificate, WriteError> {
        let nodes = self.client.nodes(committee);
        let upload = upload::Upload::new(committee, &nodes, &self.encoded);
        let all: Vec<_> = (0..committee.members.len()).collect();
        let mut left = all.clone();
        for round in 0..=REUPLOAD_ROUNDS {
            let reached = upload.run(&left, round == 0, self.options.progress.as_ref()).await?;
            tracing::debug!(round, shards = reached, "uploaded");
            let persistence = registered.persistence();
            let collected = certificate::collect(committee, &nodes, self.blob(), persistence);
            match collected.await? {
                certificate::Collected::Enough(certificate) => return Ok(certificate),
                certificate::Collected::TooFew { reached, incomplete, failure } => {
                    if round == REUPLOAD_ROUNDS || incomplete.is_empty() {
                        return Err(WriteError::NoCertificate {
                            blob: self.blob(),
                            reached,
                            needed: tally::quorum(committee),
                            shards: committee.n_shards.get().into(),
                            failure,
                        });
                    }
                    left = incomplete;
                }
            }
        }
        Err(WriteError::EpochChanged(self.blob()))
    }
}

/// Whether new confirmations may help.
fn is_about_epochs(error: &WriteError) -> bool {
    match error {
        WriteError::EpochChanged(_) => true,
        WriteError::Chain { doing, source } => {
            *doing == "certify the blob" && source.kind == ChainErrorKind::Refused
        }
        _ => false,
    }
}
