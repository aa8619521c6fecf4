//! A signed transaction is sent and seen to its end.

use std::time::Duration;

use sui_sdk_types::{Digest, ObjectOut, Transaction, TransactionEffects, UserSignature};

use super::{Outcome, Wallet};
use crate::{
    ObjectId,
    object_id::object_id,
    rpc::{Executed, Fault, Node, RpcError},
    tx::{TxError, journal::Entry},
};

/// How long the end of a sent transaction is waited for.
const FINALITY_WAIT: Duration = Duration::from_secs(90);
/// Between two questions about it.
pub(super) const FINALITY_STEP: Duration = Duration::from_millis(300);

impl Wallet {
    /// Sees a transaction from the journal to its end; `None` if it can no longer be
    /// executed, so that another may be made.
    pub(super) async fn resume(&self, entry: &Entry) -> Result<Option<Outcome>, TxError> {
        tracing::info!(purpose = %entry.purpose, "going on with a transaction signed earlier");
        let Ok(signature) = UserSignature::from_bytes(&entry.signature) else {
            self.journal.forget(&entry.purpose)?;
            return Ok(None);
        };
        match self.send(entry, signature).await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(TxError::Refused { source, .. }) => {
                tracing::info!(%source, "it was never executed, and cannot be any more");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends and waits. An entry leaves the journal when its end is known.
    pub(super) async fn send(
        &self,
        entry: &Entry,
        signature: UserSignature,
    ) -> Result<Outcome, TxError> {
        let digest = entry.transaction.digest();
        let what = entry.purpose.clone();
        let signatures = [signature];
        let send = |node: Node| {
            let signatures = &signatures;
            async move {
                // In this order: if its coins have moved on and the same node does not know
                // it afterwards, something else used them, and it can never be executed.
                let spent = coins_spent(&node, &entry.transaction).await?;
                match node.transaction(&digest).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.fault == Fault::NotFound && spent => Err(RpcError::new(
                        Fault::Refused,
                        node.url(),
                        "its gas coins have another version by now",
                    )),
                    Err(error) if error.fault == Fault::NotFound => {
                        node.execute(&entry.transaction, signatures).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let sent = self.chain.nodes().first("send the transaction", send).await;
        match self.finality(&digest, sent.is_ok()).await {
            Ok(outcome) => {
                self.journal.forget(&entry.purpose)?;
                outcome.map_err(|source| TxError::Refused { what, source })
            }
            Err(seen) => match sent {
                // A node that knows the transaction has it in no checkpoint yet, or none
                // answers: nothing is certain.
                Ok(()) => {
                    Err(TxError::Unfinished { what, digest: digest.to_string(), source: seen })
                }
                Err(source) if source.fault == Fault::Refused && seen.fault == Fault::NotFound => {
                    self.journal.forget(&entry.purpose)?;
                    Err(TxError::Refused { what, source })
                }
                Err(source) => {
                    Err(TxError::Unfinished { what, digest: digest.to_string(), source })
                }
            },
        }
    }

    /// Waits until the transaction is in a checkpoint. Inner error: it is, and it failed.
    async fn finality(
        &self,
        digest: &Digest,
        patient: bool,
    ) -> Result<Result<Outcome, RpcError>, RpcError> {
        let started = tokio::time::Instant::now();
        loop {
            let ask = |node: Node| async move { node.executed(digest).await };
            let error = match self.chain.nodes().first("find the transaction", ask).await {
                Ok(executed) => match executed.checkpoint {
                    Some(checkpoint) => return self.outcome(digest, checkpoint, executed).await,
                    None => RpcError::new(Fault::Unavailable, "chain", "in no checkpoint yet"),
                },
                Err(error) => error,
            };
            if !patient || started.elapsed() > FINALITY_WAIT {
                return Err(error);
            }
            tokio::time::sleep(FINALITY_STEP).await;
        }
    }

    async fn outcome(
        &self,
        digest: &Digest,
        checkpoint: u64,
        executed: Executed,
    ) -> Result<Result<Outcome, RpcError>, RpcError> {
        if let Some(failure) = executed.failure {
            return Ok(Err(failure));
        }
        let ids = created_ids(&executed.effects)
            .map_err(|reason| RpcError::new(Fault::Untrusted, "effects", reason))?;
        let ids = &ids;
        let read = |node: Node| async move { node.read_all(ids).await };
        let created = self.chain.nodes().first("read what was made", read).await?;
        Ok(Ok(Outcome {
            digest: digest.to_string(),
            checkpoint,
            created: created.into_iter().flatten().collect(),
            gas: executed.gas,
        }))
    }
}

/// Whether a gas coin of the transaction has another version than it names.
async fn coins_spent(node: &Node, transaction: &Transaction) -> Result<bool, RpcError> {
    let named = &transaction.gas_payment.objects;
    let ids: Vec<ObjectId> = named.iter().map(|coin| object_id(*coin.object_id())).collect();
    let now = node.read_all(&ids).await?;
    Ok(named
        .iter()
        .zip(now)
        .any(|(named, now)| now.is_none_or(|now| now.version() > named.version())))
}

/// Ids of what effects say was made and still exists.
fn created_ids(effects: &[u8]) -> Result<Vec<ObjectId>, String> {
    let effects: TransactionEffects =
        bcs::from_bytes(effects).map_err(|error| error.to_string())?;
    Ok(match &effects {
        TransactionEffects::V1(effects) => {
            effects.created.iter().map(|made| object_id(*made.reference.object_id())).collect()
        }
        TransactionEffects::V2(effects) => effects
            .changed_objects
            .iter()
            .filter(|change| {
                matches!(change.input_state, sui_sdk_types::ObjectIn::NotExist)
                    && matches!(
                        change.output_state,
                        ObjectOut::ObjectWrite { .. } | ObjectOut::PackageWrite { .. }
                    )
            })
            .map(|change| object_id(change.object_id))
            .collect(),
    })
}

/// Whether a refusal says that an object or price had changed since the transaction was
/// built, so that building it anew may help.
pub(super) fn changed(error: &RpcError) -> bool {
    let text = error.to_string().to_lowercase();
    ["version", "unavailable for consumption", "gas price", "locked", "equivocat", "stale"]
        .iter()
        .any(|sign| text.contains(sign))
}
