//! Calls about the chain: the service itself, checkpoints, epochs, transactions in checkpoints.

use sui_rpc::{
    field::{FieldMask, FieldMaskUtil},
    proto::sui::rpc::v2::{
        GetCheckpointRequest, GetEpochRequest, GetServiceInfoRequest, GetTransactionRequest,
    },
};
use sui_sdk_types::{
    Digest, SignedCheckpointSummary, ValidatorAggregatedSignature, ValidatorCommittee,
};

use super::{CheckpointAt, EpochInfo, Node, Service, SignedParts, TxInfo};
use crate::rpc::RpcError;

impl Node {
    /// What it says about itself.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn service(&self) -> Result<Service, RpcError> {
        let info = self
            .ask("service info", GetServiceInfoRequest::default(), async |mut client, request| {
                client.ledger_client().get_service_info(request).await
            })
            .await?;
        let chain = info.chain_id().parse().map_err(|error| self.malformed("chain id", error))?;
        Ok(Service { chain, epoch: info.epoch(), checkpoint: info.checkpoint_height() })
    }

    /// A transaction's effects and where it is.
    ///
    /// # Errors
    /// [`Fault::NotFound`](crate::rpc::Fault::NotFound) if the node does not know it; or no usable answer.
    pub async fn transaction(&self, digest: &Digest) -> Result<TxInfo, RpcError> {
        let request = GetTransactionRequest::new(digest).with_read_mask(FieldMask::from_paths([
            "digest",
            "effects.bcs",
            "checkpoint",
        ]));
        let answer = self
            .ask("read transaction", request, async |mut client, request| {
                client.ledger_client().get_transaction(request).await
            })
            .await?;
        let transaction = answer.transaction();
        Ok(TxInfo {
            checkpoint: transaction.checkpoint_opt(),
            effects: transaction.effects().bcs().value().to_vec(),
        })
    }

    /// A checkpoint, with its list of transactions if asked for.
    ///
    /// # Errors
    /// [`Fault::NotFound`](crate::rpc::Fault::NotFound) if the node does not have it; or no usable answer.
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
        let answer = self
            .ask("read checkpoint", request, async |mut client, request| {
                client.ledger_client().get_checkpoint(request).await
            })
            .await?;
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
    /// [`Fault::NotFound`](crate::rpc::Fault::NotFound) if the node does not know it; or no usable answer.
    pub async fn epoch(&self, epoch: Option<u64>) -> Result<EpochInfo, RpcError> {
        let request = epoch.map_or_else(GetEpochRequest::latest, GetEpochRequest::new);
        let request = request.with_read_mask(FieldMask::from_paths([
            "epoch",
            "last_checkpoint",
            "reference_gas_price",
            "committee",
        ]));
        let answer = self
            .ask("read epoch", request, async |mut client, request| {
                client.ledger_client().get_epoch(request).await
            })
            .await?;
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
}
