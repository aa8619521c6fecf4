//! `sui.rpc.v2.LedgerService`.

use sui_rpc::proto::sui::rpc::v2::{
    BatchGetObjectsRequest, BatchGetObjectsResponse, BatchGetTransactionsRequest,
    BatchGetTransactionsResponse, Checkpoint, Epoch, ExecutedTransaction, GetCheckpointRequest,
    GetCheckpointResponse, GetEpochRequest, GetEpochResponse, GetObjectRequest, GetObjectResponse,
    GetObjectResult, GetServiceInfoRequest, GetServiceInfoResponse, GetTransactionRequest,
    GetTransactionResponse, GetTransactionResult, Object, get_checkpoint_request::CheckpointId,
    get_object_result, get_transaction_result, ledger_service_server::LedgerService,
};
use tonic::{Request, Response, Status};

use super::{
    Service,
    errors::{self, address, digest, in_batch, invalid, mask},
    render::{self, Place, timestamp},
};

const OBJECT: &str = "object_id,version,digest";
const EPOCH: &str = "epoch,first_checkpoint,last_checkpoint,start,end,reference_gas_price,protocol_config.protocol_version";

/// Most requests in a batch, as on a full node.
const OBJECTS_MAX: usize = 1_000;
const TRANSACTIONS_MAX: usize = 200;

#[tonic::async_trait]
impl LedgerService for Service {
    async fn get_service_info(
        &self,
        _: Request<GetServiceInfoRequest>,
    ) -> Result<Response<GetServiceInfoResponse>, Status> {
        self.answer(|view| {
            let summary = &view.latest().summary;
            let mut info = GetServiceInfoResponse::default();
            info.chain_id = Some(view.chain.id().to_string());
            info.chain = Some("unknown".into());
            info.epoch = Some(summary.epoch);
            info.checkpoint_height = Some(summary.sequence_number);
            info.timestamp = Some(timestamp(summary.timestamp_ms));
            info.lowest_available_checkpoint = Some(view.lowest());
            info.lowest_available_checkpoint_objects = Some(view.lowest());
            info.server = Some("haulout-devnet".into());
            Ok(info)
        })
    }

    async fn get_object(
        &self,
        request: Request<GetObjectRequest>,
    ) -> Result<Response<GetObjectResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            // A full node answers this as a batch of one, and its errors say so.
            let id = address(request.object_id.as_deref(), "object_id", "requests[0].object_id")?;
            let mask = mask::<Object>(request.read_mask, OBJECT)?;
            let object = view.object(id, request.version)?;
            let mut response = GetObjectResponse::default();
            response.object = Some(render::object(&object, &mask));
            Ok(response)
        })
    }

    async fn batch_get_objects(
        &self,
        request: Request<BatchGetObjectsRequest>,
    ) -> Result<Response<BatchGetObjectsResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            if request.requests.len() > OBJECTS_MAX {
                return Err(too_many(OBJECTS_MAX));
            }
            let mask = mask::<Object>(request.read_mask, OBJECT)?;
            let mut ids = Vec::new();
            for (number, one) in request.requests.iter().enumerate() {
                let path = format!("requests[{number}].object_id");
                ids.push((address(one.object_id.as_deref(), "object_id", &path)?, one.version));
            }
            let objects = ids.into_iter().map(|(id, version)| {
                let mut result = GetObjectResult::default();
                result.result = Some(match view.object(id, version) {
                    Ok(object) => get_object_result::Result::Object(render::object(&object, &mask)),
                    Err(status) => get_object_result::Result::Error(in_batch(&status)),
                });
                result
            });
            let mut response = BatchGetObjectsResponse::default();
            response.objects = objects.collect();
            Ok(response)
        })
    }

    async fn get_transaction(
        &self,
        request: Request<GetTransactionRequest>,
    ) -> Result<Response<GetTransactionResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let digest = digest(request.digest.as_deref(), "digest")?;
            let mask = mask::<ExecutedTransaction>(request.read_mask, "digest")?;
            let executed = view.transaction(&digest)?;
            let mut response = GetTransactionResponse::default();
            response.transaction = Some(render::transaction(executed, &mask, Place::Alone));
            Ok(response)
        })
    }

    async fn batch_get_transactions(
        &self,
        request: Request<BatchGetTransactionsRequest>,
    ) -> Result<Response<BatchGetTransactionsResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            if request.digests.len() > TRANSACTIONS_MAX {
                return Err(too_many(TRANSACTIONS_MAX));
            }
            let mask = mask::<ExecutedTransaction>(request.read_mask, "digest")?;
            let mut results = Vec::new();
            for text in &request.digests {
                let digest = digest(Some(text), "digests")?;
                let mut result = GetTransactionResult::default();
                result.result = Some(match view.transaction(&digest) {
                    Ok(executed) => get_transaction_result::Result::Transaction(
                        render::transaction(executed, &mask, Place::Alone),
                    ),
                    Err(status) => get_transaction_result::Result::Error(in_batch(&status)),
                });
                results.push(result);
            }
            let mut response = BatchGetTransactionsResponse::default();
            response.transactions = results;
            Ok(response)
        })
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let mask = mask::<Checkpoint>(request.read_mask, "sequence_number,digest")?;
            let checkpoint = match &request.checkpoint_id {
                None => view.latest(),
                Some(CheckpointId::SequenceNumber(number)) => view.checkpoint(*number)?,
                Some(CheckpointId::Digest(text)) => {
                    view.checkpoint_by_digest(&digest(Some(text), "digest")?)?
                }
                Some(_) => return Err(errors::missing("checkpoint_id")),
            };
            let mut response = GetCheckpointResponse::default();
            response.checkpoint = Some(render::checkpoint(view, checkpoint, &mask));
            Ok(response)
        })
    }

    async fn get_epoch(
        &self,
        request: Request<GetEpochRequest>,
    ) -> Result<Response<GetEpochResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let mask = mask::<Epoch>(request.read_mask, EPOCH)?;
            let message = match (view.epoch(request.epoch), request.epoch) {
                (Some(epoch), _) => render::epoch(view, &epoch, &mask),
                // Unknown epochs are answered with their number and nothing else.
                (None, number) => {
                    let mut epoch = Epoch::default();
                    epoch.epoch = number.filter(|_| mask.contains("epoch"));
                    epoch
                }
            };
            let mut response = GetEpochResponse::default();
            response.epoch = Some(message);
            Ok(response)
        })
    }
}

fn too_many(max: usize) -> Status {
    invalid("requests", &format!("number of batch requests exceed limit of {max}"))
}
