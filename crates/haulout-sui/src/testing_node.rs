//! A full node made of data, on loopback: recorded exchanges or a generated chain.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use prost::Message as _;
use sui_rpc::proto::{
    google::rpc::Status as RpcStatus,
    sui::rpc::{
        v2::{
            self,
            ledger_service_server::{LedgerService, LedgerServiceServer},
            state_service_server::{StateService, StateServiceServer},
            transaction_execution_service_server::{
                TransactionExecutionService, TransactionExecutionServiceServer,
            },
        },
        v2alpha::{
            self,
            get_checkpoint_object_proof_response::Proof,
            proof_service_server::{ProofService, ProofServiceServer},
        },
    },
};
use sui_sdk_types::{Address, Object};
use tonic::{Request, Response, Status};

use crate::{
    Network, ObjectId,
    network::TrustAnchor,
    proof::{EpochEnd, Evidence, ObjectProof},
    testing_exchanges as exchanges,
};

/// What the node has.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
    pub(crate) objects: BTreeMap<Address, BTreeMap<u64, Vec<u8>>>,
    pub(crate) transactions: BTreeMap<String, v2::ExecutedTransaction>,
    pub(crate) checkpoints: BTreeMap<u64, v2::Checkpoint>,
    pub(crate) epochs: BTreeMap<u64, v2::Epoch>,
    /// Served by the proof service; without any, the service is not there.
    pub(crate) trees: BTreeMap<(String, u64), v2alpha::GetCheckpointObjectProofResponse>,
    pub(crate) proof_requests: u32,
    /// Transactions that were executed, by digest.
    pub(crate) executed: Vec<String>,
    /// What the next transaction makes, besides using its gas.
    pub(crate) makes: Vec<Object>,
    /// Executes, but neither says so nor lets anybody see it, as before a crash.
    pub(crate) mute: bool,
    /// What it says that computation costs when a transaction is tried, MIST, instead of a million.
    pub(crate) computation: Option<u64>,
    /// Refuses to execute, in these words.
    pub(crate) refuses: Option<String>,
}

impl Ledger {
    /// Everything that was recorded.
    pub(crate) fn recorded() -> Self {
        let mut ledger = Self::default();
        for (name, exchange) in exchanges::load() {
            let bytes = &exchange.response[..];
            if bytes.is_empty() {
                continue;
            }
            if name.starts_with("object-") && name != "object-default-mask" {
                let answer = v2::GetObjectResponse::decode(bytes).unwrap();
                ledger.add_object(answer.object().bcs().value());
            } else if name.starts_with("dynamic-fields-") {
                let answer = v2::ListDynamicFieldsResponse::decode(bytes).unwrap();
                for field in answer.dynamic_fields() {
                    ledger.add_object(field.field_object().bcs().value());
                }
            } else if name.starts_with("tx-") && name != "tx-default-mask" {
                let answer = v2::GetTransactionResponse::decode(bytes).unwrap();
                let transaction = answer.transaction().clone();
                ledger.transactions.insert(transaction.digest().to_owned(), transaction);
            } else if name.starts_with("checkpoint-") && !name.ends_with("default-mask") {
                let answer = v2::GetCheckpointResponse::decode(bytes).unwrap();
                let checkpoint = answer.checkpoint().clone();
                ledger.checkpoints.insert(checkpoint.sequence_number(), checkpoint);
            } else if name == "epoch-0" {
                let answer = v2::GetEpochResponse::decode(bytes).unwrap();
                ledger.epochs.insert(0, answer.epoch().clone());
            }
        }
        ledger
    }

    pub(crate) fn add_object(&mut self, bytes: &[u8]) {
        if let Ok(object) = bcs::from_bytes::<Object>(bytes) {
            let versions = self.objects.entry(object.object_id()).or_default();
            versions.insert(object.version(), bytes.to_vec());
        }
    }

    /// Object, transaction, checkpoint, and path if it is proven by one.
    pub(crate) fn add_proof(&mut self, proof: &ObjectProof) {
        self.add_object(proof.object_bytes());
        let object = proof.object();
        let sequence = proof.checkpoint();
        let digest = object.previous_transaction().to_string();
        let (contents, effects) = match proof.evidence() {
            Evidence::Effects { contents, effects_bytes, .. } => {
                (contents.clone(), effects_bytes.clone())
            }
            Evidence::Tree { leaf, root, path } => {
                let inclusion = v2alpha::OcsInclusionProof::default()
                    .with_object_ref(v2::ObjectReference::from(
                        sui_sdk_types::ObjectReference::new(
                            object.object_id(),
                            object.version(),
                            object.digest(),
                        ),
                    ))
                    .with_merkle_proof(v2alpha::MerkleProof::from(path))
                    .with_leaf_index(*leaf)
                    .with_tree_root(root.inner().to_vec())
                    .with_object_data(proof.object_bytes().to_vec());
                let mut answer = v2alpha::GetCheckpointObjectProofResponse::default()
                    .with_checkpoint_summary(bcs::to_bytes(proof.summary()).unwrap());
                answer.proof = Some(Proof::Inclusion(inclusion));
                self.trees.insert((object.object_id().to_string(), sequence), answer);
                (Vec::new(), Vec::new())
            }
        };
        self.transactions.insert(
            digest.clone(),
            v2::ExecutedTransaction::default()
                .with_digest(digest)
                .with_checkpoint(sequence)
                .with_effects(v2::TransactionEffects::default().with_bcs(raw(effects))),
        );
        let signed = proof.summary();
        self.add_checkpoint(signed, contents);
    }

    pub(crate) fn add_checkpoint(
        &mut self,
        signed: &sui_sdk_types::SignedCheckpointSummary,
        contents: Vec<u8>,
    ) {
        let sequence = signed.checkpoint.sequence_number;
        self.checkpoints.insert(
            sequence,
            v2::Checkpoint::default()
                .with_sequence_number(sequence)
                .with_digest(signed.checkpoint.digest().to_string())
                .with_summary(
                    v2::CheckpointSummary::default()
                        .with_bcs(v2::Bcs::serialize(&signed.checkpoint).unwrap()),
                )
                .with_signature(v2::ValidatorAggregatedSignature::from(signed.signature.clone()))
                .with_contents(v2::CheckpointContents::default().with_bcs(raw(contents))),
        );
    }

    pub(crate) fn add_end(&mut self, end: &EpochEnd) {
        self.add_checkpoint(&end.clone().into_signed(), Vec::new());
        let epoch =
            v2::Epoch::default().with_epoch(end.epoch()).with_last_checkpoint(end.sequence());
        self.epochs.insert(end.epoch(), epoch);
    }
}

fn raw(bytes: Vec<u8>) -> v2::Bcs {
    v2::Bcs::default().with_value(bytes)
}

impl Ledger {
    /// Executes: new versions of the gas coins, what it makes, effects, a checkpoint.
    fn execute(&mut self, transaction: &sui_sdk_types::Transaction) {
        use sui_sdk_types::{ChangedObject, IdOperation, ObjectIn, ObjectOut};
        let digest = transaction.digest();
        let version = 1_000 + self.executed.len() as u64;
        let mut made = std::mem::take(&mut self.makes);
        for coin in &transaction.gas_payment.objects {
            let bytes = self.objects[coin.object_id()].values().last().unwrap();
            let object: Object = bcs::from_bytes(bytes).unwrap();
            let value = object.as_struct().unwrap();
            let moved = sui_sdk_types::MoveStruct::new(
                value.object_type().clone(),
                true,
                version,
                value.contents().to_vec(),
            );
            let data = sui_sdk_types::ObjectData::Struct(moved.unwrap());
            made.push(Object::new(data, *object.owner(), digest, 0));
        }
        let mut effects = crate::proof::testing::empty_effects();
        effects.transaction_digest = digest;
        effects.lamport_version = version;
        effects.changed_objects = made
            .iter()
            .map(|object| ChangedObject {
                object_id: object.object_id(),
                input_state: match self.objects.contains_key(&object.object_id()) {
                    true => ObjectIn::Exist {
                        version: 1,
                        digest: sui_sdk_types::Digest::ZERO,
                        owner: *object.owner(),
                    },
                    false => ObjectIn::NotExist,
                },
                output_state: ObjectOut::ObjectWrite {
                    digest: object.digest(),
                    owner: *object.owner(),
                },
                id_operation: IdOperation::None,
            })
            .collect();
        for object in &made {
            self.add_object(&bcs::to_bytes(object).unwrap());
        }
        let effects = sui_sdk_types::TransactionEffects::V2(Box::new(effects));
        let effects = v2::TransactionEffects::default()
            .with_bcs(v2::Bcs::serialize(&effects).unwrap())
            .with_status(v2::ExecutionStatus::default().with_success(true))
            .with_gas_used(
                v2::GasCostSummary::default()
                    .with_computation_cost(1_000_000)
                    .with_storage_cost(2_000_000)
                    .with_storage_rebate(500_000),
            );
        self.executed.push(digest.to_string());
        self.transactions.insert(
            digest.to_string(),
            v2::ExecutedTransaction::default()
                .with_digest(digest.to_string())
                .with_checkpoint(77u64)
                .with_effects(effects),
        );
    }
}

/// Serves a ledger that can be changed under way.
#[derive(Debug, Clone)]
pub(crate) struct Server(pub(crate) Arc<Mutex<Ledger>>);

impl Server {
    /// Starts to serve; returns the address. Ends with the runtime.
    pub(crate) async fn start(ledger: Ledger) -> (Self, String) {
        let server = Self(Arc::new(Mutex::new(ledger)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let router = tonic::transport::Server::builder()
            .add_service(LedgerServiceServer::new(server.clone()))
            .add_service(StateServiceServer::new(server.clone()))
            .add_service(TransactionExecutionServiceServer::new(server.clone()))
            .add_service(ProofServiceServer::new(server.clone()));
        tokio::spawn(router.serve_with_incoming(incoming));
        (server, url)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.0.lock().unwrap());
    }

    fn find(&self, id: &str, version: Option<u64>) -> Result<v2::Object, Status> {
        let id: Address = id.parse().map_err(|_| Status::invalid_argument("invalid object_id"))?;
        let ledger = self.0.lock().unwrap();
        let versions = ledger.objects.get(&id);
        let found = match version {
            None => versions.and_then(|versions| versions.last_key_value()),
            Some(version) => versions.and_then(|versions| versions.get_key_value(&version)),
        };
        let (version, bytes) =
            found.ok_or_else(|| Status::not_found(format!("Object {id} not found")))?;
        Ok(v2::Object::default()
            .with_object_id(id.to_string())
            .with_version(*version)
            .with_bcs(raw(bytes.clone())))
    }
}

#[tonic::async_trait]
impl LedgerService for Server {
    async fn get_object(
        &self,
        request: Request<v2::GetObjectRequest>,
    ) -> Result<Response<v2::GetObjectResponse>, Status> {
        let request = request.into_inner();
        let object = self.find(request.object_id(), request.version)?;
        Ok(Response::new(v2::GetObjectResponse::new(object)))
    }

    async fn batch_get_objects(
        &self,
        request: Request<v2::BatchGetObjectsRequest>,
    ) -> Result<Response<v2::BatchGetObjectsResponse>, Status> {
        let results = request
            .into_inner()
            .requests
            .iter()
            .map(|request| match self.find(request.object_id(), request.version) {
                Ok(object) => v2::GetObjectResult::new_object(object),
                Err(status) => {
                    let message = status.message().to_owned();
                    let error = RpcStatus { code: 5, message, ..RpcStatus::default() };
                    v2::GetObjectResult::new_error(error)
                }
            })
            .collect();
        Ok(Response::new(v2::BatchGetObjectsResponse::new(results)))
    }

    async fn get_transaction(
        &self,
        request: Request<v2::GetTransactionRequest>,
    ) -> Result<Response<v2::GetTransactionResponse>, Status> {
        let ledger = self.0.lock().unwrap();
        let digest = request.get_ref().digest();
        if ledger.mute && ledger.executed.iter().any(|executed| executed == digest) {
            return Err(Status::unavailable("come again"));
        }
        let found = ledger.transactions.get(digest).cloned();
        let found = found.ok_or_else(|| Status::not_found("Transaction not found"))?;
        Ok(Response::new(v2::GetTransactionResponse::new(found)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v2::GetCheckpointRequest>,
    ) -> Result<Response<v2::GetCheckpointResponse>, Status> {
        use v2::get_checkpoint_request::CheckpointId;
        let ledger = self.0.lock().unwrap();
        let found = match &request.get_ref().checkpoint_id {
            Some(CheckpointId::SequenceNumber(sequence)) => ledger.checkpoints.get(sequence),
            Some(CheckpointId::Digest(digest)) => {
                ledger.checkpoints.values().find(|checkpoint| checkpoint.digest() == digest)
            }
            _ => ledger.checkpoints.values().last(),
        };
        let found = found.cloned().ok_or_else(|| Status::not_found("Checkpoint not found"))?;
        let mut answer = v2::GetCheckpointResponse::default();
        answer.checkpoint = Some(found);
        Ok(Response::new(answer))
    }

    async fn get_epoch(
        &self,
        request: Request<v2::GetEpochRequest>,
    ) -> Result<Response<v2::GetEpochResponse>, Status> {
        let ledger = self.0.lock().unwrap();
        let found = match request.get_ref().epoch {
            Some(epoch) => ledger.epochs.get(&epoch),
            None => ledger.epochs.values().last(),
        };
        let found = found.cloned().ok_or_else(|| Status::not_found("Epoch not found"))?;
        Ok(Response::new(v2::GetEpochResponse::new(found)))
    }
}

#[tonic::async_trait]
impl StateService for Server {
    async fn list_owned_objects(
        &self,
        request: Request<v2::ListOwnedObjectsRequest>,
    ) -> Result<Response<v2::ListOwnedObjectsResponse>, Status> {
        let request = request.into_inner();
        let ledger = self.0.lock().unwrap();
        let mut answer = v2::ListOwnedObjectsResponse::default();
        for versions in ledger.objects.values() {
            let Some(bytes) = versions.values().last() else { continue };
            let object: Object = bcs::from_bytes(bytes).unwrap();
            let of_type = object
                .as_struct()
                .is_some_and(|value| value.object_type().to_string() == request.object_type());
            let owned = matches!(object.owner(), sui_sdk_types::Owner::Address(address)
                if address.to_string() == request.owner());
            if of_type && owned {
                answer.objects.push(v2::Object::default().with_bcs(raw(bytes.clone())));
            }
        }
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl TransactionExecutionService for Server {
    async fn simulate_transaction(
        &self,
        _: Request<v2::SimulateTransactionRequest>,
    ) -> Result<Response<v2::SimulateTransactionResponse>, Status> {
        let computation = self.0.lock().unwrap().computation;
        let gas = v2::GasCostSummary::default()
            .with_computation_cost(computation.unwrap_or(1_000_000))
            .with_storage_cost(2_000_000)
            .with_storage_rebate(500_000);
        let effects = v2::TransactionEffects::default()
            .with_status(v2::ExecutionStatus::default().with_success(true))
            .with_gas_used(gas);
        let mut answer = v2::SimulateTransactionResponse::default();
        answer.transaction = Some(v2::ExecutedTransaction::default().with_effects(effects));
        Ok(Response::new(answer))
    }

    async fn execute_transaction(
        &self,
        request: Request<v2::ExecuteTransactionRequest>,
    ) -> Result<Response<v2::ExecuteTransactionResponse>, Status> {
        let request = request.into_inner();
        let mut ledger = self.0.lock().unwrap();
        if let Some(words) = ledger.refuses.take() {
            return Err(Status::invalid_argument(words));
        }
        let transaction: sui_sdk_types::Transaction =
            request.transaction().bcs().deserialize().unwrap();
        assert_eq!(request.signatures.len(), 1);
        if !ledger.executed.contains(&transaction.digest().to_string()) {
            ledger.execute(&transaction);
        }
        if ledger.mute {
            return Err(Status::unavailable("connection lost"));
        }
        let digest = transaction.digest().to_string();
        let mut answer = v2::ExecuteTransactionResponse::default();
        answer.transaction = ledger.transactions.get(&digest).cloned();
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl ProofService for Server {
    async fn get_checkpoint_object_proof(
        &self,
        request: Request<v2alpha::GetCheckpointObjectProofRequest>,
    ) -> Result<Response<v2alpha::GetCheckpointObjectProofResponse>, Status> {
        let mut ledger = self.0.lock().unwrap();
        ledger.proof_requests += 1;
        if ledger.trees.is_empty() {
            return Err(Status::unimplemented("no such service"));
        }
        let request = request.into_inner();
        let key = (request.object_id().to_owned(), request.checkpoint());
        let found = ledger.trees.get(&key).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found("no such checkpoint"))
    }
}

/// A network of these nodes.
pub(crate) fn network(urls: &[&str], anchor: Option<TrustAnchor>) -> Network {
    Network {
        name: "test".to_owned(),
        rpc_urls: urls.iter().map(|&url| url.to_owned()).collect(),
        system_object: ObjectId([1; 32]),
        staking_object: ObjectId([2; 32]),
        aggregators: Vec::new(),
        walrus_package: None,
        wal_package: None,
        trust_anchor: anchor,
    }
}

/// The network of the recorded exchanges.
pub(crate) fn recorded_network(urls: &[&str]) -> Network {
    Network {
        system_object: "0x3ac57921a72f415818723ea1819c4b05c3d510e6c63f558fc7918a8392560b10"
            .parse()
            .unwrap(),
        staking_object: "0xa25706729693fb5aea56cc0bf7bba03f724807785d63f98c4767356da5049069"
            .parse()
            .unwrap(),
        ..network(urls, None)
    }
}
