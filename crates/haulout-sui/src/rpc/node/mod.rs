//! One full node: the few calls that are needed, with time and size limits.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sui_rpc::{
    Client,
    field::{FieldMask, FieldMaskUtil},
    proto::sui::rpc::{
        v2::{
            self, BatchGetObjectsRequest, ExecuteTransactionRequest, GetCheckpointRequest,
            GetEpochRequest, GetObjectRequest, GetServiceInfoRequest, GetTransactionRequest,
            ListOwnedObjectsRequest, SimulateTransactionRequest,
        },
        v2alpha::{GetCheckpointObjectProofRequest, get_checkpoint_object_proof_response::Proof},
    },
};
use sui_sdk_types::{
    Address, Digest, Object, SignedCheckpointSummary, Transaction, UserSignature,
    ValidatorAggregatedSignature, ValidatorCommittee, proof::OcsInclusionProof,
};
use tonic::IntoRequest;

use super::{Fault, RpcError, error::words};
use crate::{ObjectId, object_id::address};

/// A call that has not ended by then has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Executing waits for the validators.
const EXECUTE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of one answer: a full checkpoint list has a few MB.
const ANSWER_BYTES_MAX: usize = 24 << 20;
/// Objects asked for at once.
const BATCH_MAX: usize = 50;
/// Pages of owned objects that are looked through, 200 objects each: the blobs of who publishes 250,000 paths a
/// month for two years.
const PAGES_MAX: usize = 1_000;
const PAGE_SIZE: u32 = 200;

/// A full node, by its address. Cheap to clone; connects when first used.
#[derive(Clone)]
pub struct Node {
    url: Arc<str>,
    client: Arc<OnceLock<Result<Client, RpcError>>>,
    /// Cleared once it has said that it serves no proofs.
    serves_proofs: Arc<AtomicBool>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.url).finish()
    }
}

/// What a node says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Digest of the chain's first checkpoint.
    pub chain: Digest,
    /// The current epoch.
    pub epoch: u64,
    /// The newest checkpoint.
    pub checkpoint: u64,
}

/// Which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointAt {
    /// By number.
    Sequence(u64),
    /// By digest.
    Digest(Digest),
}

/// What a node says about an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochInfo {
    /// The epoch.
    pub epoch: u64,
    /// Its last checkpoint, once it is over.
    pub last_checkpoint: Option<u64>,
    /// MIST per unit of computation.
    pub gas_price: Option<u64>,
    /// Its committee; not proven by anything.
    pub committee: Option<ValidatorCommittee>,
}

/// A checkpoint's parts. BCS where digests are taken of them.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedParts {
    /// Summary and signature.
    pub signed: SignedCheckpointSummary,
    /// BCS `CheckpointContents`, if asked for.
    pub contents: Option<Vec<u8>>,
}

/// A transaction that was executed.
#[derive(Debug, Clone, PartialEq)]
pub struct TxInfo {
    /// The checkpoint it is in; `None` as long as it is in none.
    pub checkpoint: Option<u64>,
    /// BCS `TransactionEffects`.
    pub effects: Vec<u8>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// The checkpoint it is in; `None` as long as it is in none.
    pub checkpoint: Option<u64>,
    /// BCS `TransactionEffects`.
    pub effects: Vec<u8>,
    /// What it cost.
    pub gas: Gas,
    /// Why it failed, if it did.
    pub failure: Option<RpcError>,
}

/// An object of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedObject(pub Object);

/// What a transaction costs, in MIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gas {
    /// Burnt or paid to validators.
    pub computation: u64,
    /// Deposit for the bytes of the objects written.
    pub storage: u64,
    /// Deposit given back for those overwritten or deleted.
    pub rebate: u64,
}

impl Gas {
    /// What leaves the account, in MIST; negative if more is given back.
    #[must_use]
    pub fn net(&self) -> i128 {
        i128::from(self.computation) + i128::from(self.storage) - i128::from(self.rebate)
    }
}

impl Node {
    /// A node by its address; connects when it is first asked something.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            client: Arc::new(OnceLock::new()),
            serves_proofs: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Made late, because it wants to be made inside of a Tokio runtime.
    fn client(&self) -> Result<Client, RpcError> {
        let made = self.client.get_or_init(|| {
            let client = Client::new(&*self.url)
                .map_err(|status| RpcError::status(&self.url, "connect", &status))?
                .with_response_headers_timeout(EXECUTE_TIMEOUT)
                .with_body_idle_timeout(CALL_TIMEOUT)
                .with_max_decoding_message_size(ANSWER_BYTES_MAX);
            Ok(client)
        });
        made.clone()
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for an answer, but not for ever.
    async fn within<T>(
        &self,
        doing: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(RpcError::status(&self.url, doing, &status)),
            Err(_) => Err(RpcError::new(
                Fault::Unavailable,
                &self.url,
                format_args!("{doing}: no answer within {} s", limit.as_secs()),
            )),
        }
    }

    fn malformed(&self, what: &str, reason: impl std::fmt::Display) -> RpcError {
        let reason = words(&reason.to_string());
        RpcError::new(Fault::Untrusted, &self.url, format_args!("a malformed {what}: {reason}"))
    }

    fn limited<T>(request: T, limit: Duration) -> tonic::Request<T> {
        let mut request = request.into_request();
        request.set_timeout(limit);
        request
    }

    /// What it says about itself.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn service(&self) -> Result<Service, RpcError> {
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(GetServiceInfoRequest::default(), CALL_TIMEOUT);
        let info =
            self.within("service info", CALL_TIMEOUT, ledger.get_service_info(request)).await?;
        let chain = info.chain_id().parse().map_err(|error| self.malformed("chain id", error))?;
        Ok(Service { chain, epoch: info.epoch(), checkpoint: info.checkpoint_height() })
    }

    /// An object's BCS bytes, newest version or a given one.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if there is none; or no usable answer.
    pub async fn object(&self, id: ObjectId, version: Option<u64>) -> Result<Vec<u8>, RpcError> {
        let mut request = GetObjectRequest::new(&address(id))
            .with_read_mask(FieldMask::from_paths(["object_id", "bcs"]));
        request.version = version;
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer = self.within("read object", CALL_TIMEOUT, ledger.get_object(request)).await?;
        Ok(answer.object().bcs().value().to_vec())
    }

    /// An object's newest version, by number.
    ///
    /// # Errors
    /// As [`Node::object`].
    pub async fn version(&self, id: ObjectId) -> Result<u64, RpcError> {
        let request = GetObjectRequest::new(&address(id))
            .with_read_mask(FieldMask::from_paths(["object_id", "version"]));
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer = self.within("read object", CALL_TIMEOUT, ledger.get_object(request)).await?;
        let found = answer.object().object_id();
        if found.parse() != Ok(address(id)) {
            let found = words(found);
            return Err(self.malformed("object", format_args!("{found} instead of {id}")));
        }
        Ok(answer.object().version())
    }

    /// An object, read but not proven.
    ///
    /// # Errors
    /// As [`Node::object`], or another object than asked for.
    pub async fn read(&self, id: ObjectId) -> Result<Object, RpcError> {
        let bytes = self.object(id, None).await?;
        self.parse(id, &bytes)
    }

    fn parse(&self, id: ObjectId, bytes: &[u8]) -> Result<Object, RpcError> {
        let object: Object =
            bcs::from_bytes(bytes).map_err(|error| self.malformed("object", error))?;
        if object.object_id() == address(id) {
            return Ok(object);
        }
        Err(self.malformed("object", format_args!("{} instead of {id}", object.object_id())))
    }

    /// Several objects, in the order asked for; `None` where there is none.
    ///
    /// # Errors
    /// No usable answer to one of the requests.
    pub async fn read_all(&self, ids: &[ObjectId]) -> Result<Vec<Option<Object>>, RpcError> {
        let mut objects = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH_MAX) {
            let requests =
                batch.iter().map(|&id| GetObjectRequest::new(&address(id))).collect::<Vec<_>>();
            let request = BatchGetObjectsRequest::default()
                .with_requests(requests)
                .with_read_mask(FieldMask::from_paths(["object_id", "bcs"]));
            let mut client = self.client()?;
            let mut ledger = client.ledger_client();
            let request = Self::limited(request, CALL_TIMEOUT);
            let answer = self
                .within("read objects", CALL_TIMEOUT, ledger.batch_get_objects(request))
                .await?;
            if answer.objects.len() != batch.len() {
                return Err(self.malformed("batch", "not as many answers as questions"));
            }
            for (&id, result) in batch.iter().zip(&answer.objects) {
                objects.push(match result.object_opt() {
                    Some(object) => Some(self.parse(id, object.bcs().value())?),
                    None => None,
                });
            }
        }
        Ok(objects)
    }

    /// A transaction's effects and where it is.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if the node does not know it; or no usable answer.
    pub async fn transaction(&self, digest: &Digest) -> Result<TxInfo, RpcError> {
        let request = GetTransactionRequest::new(digest).with_read_mask(FieldMask::from_paths([
            "digest",
            "effects.bcs",
            "checkpoint",
        ]));
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer =
            self.within("read transaction", CALL_TIMEOUT, ledger.get_transaction(request)).await?;
        let transaction = answer.transaction();
        Ok(TxInfo {
            checkpoint: transaction.checkpoint_opt(),
            effects: transaction.effects().bcs().value().to_vec(),
        })
    }

    /// A checkpoint, with its list of transactions if asked for.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if the node does not have it; or no usable answer.
    pub async fn checkpoint(
        &self,
        at: CheckpointAt,
        with_contents: bool,
    ) -> Result<SignedParts, RpcError> {
        let request = match at {
            CheckpointAt::Sequence(sequence) => GetCheckpointRequest::by_sequence_number(sequence),
            CheckpointAt::Digest(digest) => GetCheckpointRequest::by_digest(&digest),
        };
        let mut paths = vec!["sequence_number", "summary.bcs", "signature"];
        if with_contents {
            paths.push("contents.bcs");
        }
        let request = request.with_read_mask(FieldMask::from_paths(paths));
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer =
            self.within("read checkpoint", CALL_TIMEOUT, ledger.get_checkpoint(request)).await?;
        let checkpoint = answer.checkpoint();
        let signed = SignedCheckpointSummary {
            checkpoint: checkpoint
                .summary()
                .bcs()
                .deserialize()
                .map_err(|error| self.malformed("checkpoint summary", error))?,
            signature: ValidatorAggregatedSignature::try_from(checkpoint.signature())
                .map_err(|error| self.malformed("checkpoint signature", error))?,
        };
        let contents = with_contents.then(|| checkpoint.contents().bcs().value().to_vec());
        Ok(SignedParts { signed, contents })
    }

    /// An epoch; `None` is the current one.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if the node does not know it; or no usable answer.
    pub async fn epoch(&self, epoch: Option<u64>) -> Result<EpochInfo, RpcError> {
        let request = epoch.map_or_else(GetEpochRequest::latest, GetEpochRequest::new);
        let request = request.with_read_mask(FieldMask::from_paths([
            "epoch",
            "last_checkpoint",
            "reference_gas_price",
            "committee",
        ]));
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer = self.within("read epoch", CALL_TIMEOUT, ledger.get_epoch(request)).await?;
        let info = answer.epoch();
        Ok(EpochInfo {
            epoch: info.epoch_opt().ok_or_else(|| self.malformed("epoch", "without its number"))?,
            last_checkpoint: info.last_checkpoint_opt(),
            gas_price: info.reference_gas_price_opt(),
            committee: info
                .committee_opt()
                .and_then(|committee| ValidatorCommittee::try_from(committee).ok()),
        })
    }

    /// The path of an object through the tree of what a checkpoint wrote: signed summary,
    /// path, object bytes. `None` if the node serves no such proofs, and from then on
    /// without asking.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn object_proof(
        &self,
        id: ObjectId,
        checkpoint: u64,
    ) -> Result<Option<(Vec<u8>, OcsInclusionProof, Vec<u8>)>, RpcError> {
        if !self.serves_proofs.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let request = GetCheckpointObjectProofRequest::default()
            .with_object_id(address(id).to_string())
            .with_checkpoint(checkpoint);
        let mut client = self.client()?;
        let mut proofs = client.proof_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer = match self
            .within("prove object", CALL_TIMEOUT, proofs.get_checkpoint_object_proof(request))
            .await
        {
            Ok(answer) => answer,
            Err(error) if matches!(error.fault, Fault::Unsupported | Fault::Refused) => {
                tracing::debug!(node = %self.url, %error, "serves no object proofs");
                self.serves_proofs.store(false, Ordering::Relaxed);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let summary = answer.checkpoint_summary().to_vec();
        match &answer.proof {
            Some(Proof::Inclusion(inclusion)) => {
                let bytes = inclusion.object_data().to_vec();
                let proof = OcsInclusionProof::try_from(inclusion)
                    .map_err(|error| self.malformed("object proof", error))?;
                Ok(Some((summary, proof, bytes)))
            }
            _ => Err(self.malformed("object proof", "it says the object was not written")),
        }
    }

    /// The objects of an account that have this type.
    ///
    /// # Errors
    /// No usable answer, or more pages than anybody's wallet has.
    pub async fn owned(
        &self,
        owner: &Address,
        object_type: &str,
    ) -> Result<Vec<OwnedObject>, RpcError> {
        let mut objects = Vec::new();
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let mut request = ListOwnedObjectsRequest::default()
                .with_owner(owner.to_string())
                .with_object_type(object_type.to_owned())
                .with_page_size(PAGE_SIZE)
                .with_read_mask(FieldMask::from_paths(["object_id", "bcs"]));
            request.page_token = token;
            let mut client = self.client()?;
            let mut state = client.state_client();
            let request = Self::limited(request, CALL_TIMEOUT);
            let page = self
                .within("list owned objects", CALL_TIMEOUT, state.list_owned_objects(request))
                .await?;
            if page.objects.len() > PAGE_SIZE as usize {
                return Err(self.malformed("list", "more objects on a page than were asked for"));
            }
            for object in &page.objects {
                let object = bcs::from_bytes(object.bcs().value())
                    .map_err(|error| self.malformed("object", error))?;
                objects.push(OwnedObject(object));
            }
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(objects);
            }
        }
        Err(RpcError::new(
            Fault::Refused,
            &self.url,
            format_args!(
                "the account has more than {} such objects",
                PAGES_MAX * PAGE_SIZE as usize
            ),
        ))
    }

    /// Runs a transaction without effect: what it would cost.
    ///
    /// # Errors
    /// [`Fault::Refused`] with the reason if it would fail; or no usable answer.
    pub async fn simulate(&self, transaction: v2::Transaction) -> Result<Gas, RpcError> {
        let request = SimulateTransactionRequest::default()
            .with_transaction(transaction)
            .with_read_mask(FieldMask::from_paths([
                "transaction.effects.status",
                "transaction.effects.gas_used",
            ]));
        let mut client = self.client()?;
        let mut execution = client.execution_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer =
            self.within("simulate", CALL_TIMEOUT, execution.simulate_transaction(request)).await?;
        let effects = answer.transaction().effects();
        self.failure(effects.status()).map_or_else(|| Ok(gas(effects)), Err)
    }

    /// How an executed transaction ended.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if the node does not know it; or no usable answer.
    pub async fn executed(&self, digest: &Digest) -> Result<Executed, RpcError> {
        let request = GetTransactionRequest::new(digest).with_read_mask(FieldMask::from_paths([
            "digest",
            "checkpoint",
            "effects.bcs",
            "effects.status",
            "effects.gas_used",
        ]));
        let mut client = self.client()?;
        let mut ledger = client.ledger_client();
        let request = Self::limited(request, CALL_TIMEOUT);
        let answer =
            self.within("read transaction", CALL_TIMEOUT, ledger.get_transaction(request)).await?;
        let transaction = answer.transaction();
        let effects = transaction.effects();
        Ok(Executed {
            checkpoint: transaction.checkpoint_opt(),
            effects: effects.bcs().value().to_vec(),
            gas: gas(effects),
            failure: self.failure(effects.status()),
        })
    }

    /// Sends a signed transaction to the validators. The answer's effects are final, but
    /// not yet in a checkpoint.
    ///
    /// # Errors
    /// [`Fault::Refused`] with the reason if it failed; or no usable answer, in which case
    /// it may still be executed: look its digest up.
    pub async fn execute(
        &self,
        transaction: &Transaction,
        signatures: &[UserSignature],
    ) -> Result<(), RpcError> {
        let request = ExecuteTransactionRequest::default()
            .with_transaction(transaction.clone())
            .with_signatures(signatures.iter().cloned().map(Into::into).collect::<Vec<_>>())
            .with_read_mask(FieldMask::from_paths(["digest", "effects.status"]));
        let mut client = self.client()?;
        let mut execution = client.execution_client();
        let request = Self::limited(request, EXECUTE_TIMEOUT);
        self.within("execute", EXECUTE_TIMEOUT, execution.execute_transaction(request))
            .await
            .map(|_| ())
    }

    /// Why a transaction failed; `None` if it succeeded.
    fn failure(&self, status: &v2::ExecutionStatus) -> Option<RpcError> {
        if status.success() {
            return None;
        }
        let error = status.error();
        let kind = format!("{:?}", error.kind());
        let what = match error.abort_opt() {
            Some(abort) => {
                let at = abort.location();
                let place = format!("{}::{}", at.module(), at.function_name());
                format!("the transaction aborts in {place} with code {}", abort.abort_code())
            }
            None => format!("the transaction fails: {kind}"),
        };
        let said = error.description_opt().map(|said| format!(": {said}")).unwrap_or_default();
        let failed = RpcError::new(Fault::Refused, &self.url, words(&format!("{what}{said}")));
        Some(match error.abort_opt() {
            Some(abort) => failed.aborted(abort.location().module(), abort.abort_code()),
            None => failed,
        })
    }
}

fn gas(effects: &v2::TransactionEffects) -> Gas {
    let used = effects.gas_used();
    Gas {
        computation: used.computation_cost(),
        storage: used.storage_cost(),
        rebate: used.storage_rebate(),
    }
}
