//! A transaction is put together and tried.

use sui_rpc::proto::sui::rpc::v2;
use sui_sdk_types::{Address, Owner, Transaction};
use sui_transaction_builder::{ObjectInput, TransactionBuilder};

use super::{
    Estimate, Request, Wallet,
    coins::{OwnedCoin, TRY_BUDGET},
};
use crate::{
    ObjectId,
    chain::SystemView,
    object_id::address,
    rpc::{Fault, Node, RpcError},
    tx::{Ptb, TxError},
};

/// The least a budget may be, in units of the gas price.
const BUDGET_UNITS_MIN: u64 = 2_000;

impl Wallet {
    /// Builds a transaction that would succeed, and what it costs.
    pub(super) async fn prepare(
        &self,
        request: &Request<'_>,
    ) -> Result<(Transaction, Estimate), TxError> {
        // Prices and the package to call may have changed since they were last read.
        let view = self.chain.system(true).await?;
        let prepare = |node: Node| {
            let view = view.clone();
            async move {
                match self.prepare_with(&node, &view, request).await {
                    // What the account or the request lacks, no other node can mend.
                    Err(TxError::Rpc(error)) => Err(error),
                    outcome => Ok(outcome),
                }
            }
        };
        match self.chain.nodes().first("prepare the transaction", prepare).await {
            Ok(outcome) => outcome,
            Err(source) if source.fault == Fault::Refused => {
                Err(TxError::Refused { what: request.purpose.clone(), source })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn prepare_with(
        &self,
        node: &Node,
        view: &SystemView,
        request: &Request<'_>,
    ) -> Result<(Transaction, Estimate), TxError> {
        let price = node.epoch(None).await?.gas_price.unwrap_or(1_000);
        let gas = self.gas_coins(node).await?;
        let wal = if request.wal > 0 {
            self.wal_coins(node, view, request.wal).await?
        } else {
            Vec::new()
        };
        let objects = inputs(node, &request.objects).await?;
        let balance: u64 = gas.iter().map(|coin| coin.balance).fold(0, u64::saturating_add);
        let parts = Parts { view, objects, wal, gas, price, sender: self.signer.address() };
        let tried = parts.build(request, balance.min(TRY_BUDGET))?;
        let used = node.simulate(v2::Transaction::from(tried)).await?;
        // A fifth more than was needed, because shared objects may grow in between.
        let needed = used.computation.saturating_add(used.storage);
        let budget = needed.saturating_add(needed / 5).max(price.saturating_mul(BUDGET_UNITS_MIN));
        if budget > balance {
            return Err(TxError::Coins {
                account: self.account(),
                coin: "MIST of SUI",
                has: balance,
                needs: budget,
            });
        }
        let estimate = Estimate {
            what: request.purpose.clone(),
            account: self.account(),
            gas: used,
            budget,
            wal: request.wal,
        };
        Ok((parts.build(request, budget)?, estimate))
    }
}

/// Everything a transaction is made of.
pub(crate) struct Parts<'a> {
    pub(crate) view: &'a SystemView,
    pub(crate) objects: Vec<ObjectInput>,
    pub(crate) wal: Vec<OwnedCoin>,
    pub(crate) gas: Vec<OwnedCoin>,
    pub(crate) price: u64,
    pub(crate) sender: Address,
}

impl Parts<'_> {
    pub(crate) fn build(&self, request: &Request<'_>, budget: u64) -> Result<Transaction, TxError> {
        let mut builder = TransactionBuilder::new();
        let mut coins =
            self.wal.iter().map(|coin| builder.object(coin.input.clone())).collect::<Vec<_>>();
        let wal = (!coins.is_empty()).then(|| coins.remove(0));
        if let Some(first) = wal
            && !coins.is_empty()
        {
            builder.merge_coins(first, coins);
        }
        let mut ptb = Ptb {
            builder: &mut builder,
            view: self.view,
            sender: self.sender,
            objects: self.objects.clone(),
            wal,
        };
        (request.build)(&mut ptb)?;
        builder.set_sender(self.sender);
        builder.set_gas_price(self.price);
        builder.set_gas_budget(budget);
        builder.add_gas_objects(self.gas.iter().map(|coin| coin.input.clone()));
        builder.try_build().map_err(|error| TxError::Build(error.to_string()))
    }
}

/// Objects as a transaction names them: owned ones by version, shared ones by where they
/// became shared.
async fn inputs(node: &Node, objects: &[(ObjectId, bool)]) -> Result<Vec<ObjectInput>, TxError> {
    let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
    let found = node.read_all(&ids).await?;
    objects
        .iter()
        .zip(found)
        .map(|(&(id, mutable), object)| {
            let object = object.ok_or_else(|| {
                RpcError::new(Fault::Refused, node.url(), format_args!("no object {id}"))
            })?;
            Ok(match object.owner() {
                Owner::Shared(version) => ObjectInput::shared(address(id), *version, mutable),
                Owner::Immutable => {
                    ObjectInput::immutable(address(id), object.version(), object.digest())
                }
                _ => ObjectInput::owned(address(id), object.version(), object.digest()),
            })
        })
        .collect()
}
