//! Calls that try, send and follow transactions.

use sui_rpc::{
    field::{FieldMask, FieldMaskUtil},
    proto::sui::rpc::v2::{
        self, ExecuteTransactionRequest, GetTransactionRequest, SimulateTransactionRequest,
    },
};
use sui_sdk_types::{Digest, Transaction, UserSignature};

use super::{EXECUTE_TIMEOUT, Executed, Gas, Node, answers::gas};
use crate::rpc::{Fault, RpcError, error::words};

impl Node {
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
        let answer = self
            .ask("simulate", request, async |mut client, request| {
                client.execution_client().simulate_transaction(request).await
            })
            .await?;
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
        let answer = self
            .ask("read transaction", request, async |mut client, request| {
                client.ledger_client().get_transaction(request).await
            })
            .await?;
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
        self.ask_within(EXECUTE_TIMEOUT, "execute", request, async |mut client, request| {
            client.execution_client().execute_transaction(request).await
        })
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
