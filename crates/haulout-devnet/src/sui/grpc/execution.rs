//! `sui.rpc.v2.TransactionExecutionService`.

use sui_rpc::proto::sui::rpc::v2::{
    ExecuteTransactionRequest, ExecuteTransactionResponse, ExecutedTransaction, GasPayment,
    SimulateTransactionRequest, SimulateTransactionResponse, Transaction as TransactionMessage,
    transaction_execution_service_server::TransactionExecutionService,
};
use sui_sdk_types::{
    Address, ObjectReference, SignedTransaction, StructTag, Transaction, UserSignature,
};
use tonic::{Request, Response, Status};

use super::{
    Service,
    errors::{invalid, mask, missing},
    render::{self, Place},
};
use crate::sui::{
    exec::coin_value,
    model::{Chain, Executed, Rejected},
};

/// Gas budget of a simulation that names none, in MIST.
const BUDGET: u64 = 1_000_000_000;
/// Most coins that gas selection takes.
const COINS_MAX: usize = 16;

#[tonic::async_trait]
impl TransactionExecutionService for Service {
    async fn execute_transaction(
        &self,
        request: Request<ExecuteTransactionRequest>,
    ) -> Result<Response<ExecuteTransactionResponse>, Status> {
        let request = request.into_inner();
        let faults = self.faults.get();
        if faults.gone {
            return self.answer(|_| Ok(ExecuteTransactionResponse::default()));
        }
        let message = request.transaction.as_ref().ok_or_else(|| missing("transaction"))?;
        let transaction = Transaction::try_from(message)
            .map_err(|error| invalid("transaction", &format!("invalid transaction: {error}")))?;
        let signatures: Result<Vec<_>, _> =
            request.signatures.iter().map(UserSignature::try_from).collect();
        let signatures = signatures
            .map_err(|error| invalid("signatures", &format!("invalid signature: {error}")))?;
        let mask = mask::<ExecutedTransaction>(request.read_mask, "effects")?;
        let signed = SignedTransaction { transaction, signatures };
        let now = (self.now)();
        let source = self.source(faults);
        let executed = source.change(|chain| chain.submit(signed, now)).map_err(refused)?;
        self.answer(|_| {
            let mut response = ExecuteTransactionResponse::default();
            response.transaction = Some(render::transaction(&executed, &mask, Place::Fresh));
            Ok(response)
        })
    }

    async fn simulate_transaction(
        &self,
        request: Request<SimulateTransactionRequest>,
    ) -> Result<Response<SimulateTransactionResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let mut message = request.transaction.ok_or_else(|| missing("transaction"))?;
            let mask = mask::<SimulateTransactionResponse>(request.read_mask, "*")?;
            let select = request.do_gas_selection.unwrap_or(false);
            if message.bcs.is_none() {
                complete(view.chain, &mut message)?;
            }
            let mut transaction = Transaction::try_from(&message).map_err(|error| {
                invalid("transaction", &format!("invalid transaction: {error}"))
            })?;
            if select || transaction.gas_payment.objects.is_empty() {
                select_gas(view.chain, &mut transaction)?;
            }
            let mut outcome = view.chain.simulate(&transaction).map_err(refused)?;
            if select {
                // The budget that was needed, with a fifth in reserve.
                let gas = outcome.effects.gas_summary();
                let need =
                    gas.computation_cost + gas.storage_cost.saturating_sub(gas.storage_rebate);
                let least = 1_000 * view.chain.gas_price();
                transaction.gas_payment.budget = (need + need / 5).max(least);
                outcome = view.chain.simulate(&transaction).map_err(refused)?;
            }
            let digest = transaction.digest();
            let executed = Executed {
                digest,
                signed: SignedTransaction { transaction, signatures: vec![] },
                effects: outcome.effects,
                events: outcome.events,
                inputs: outcome.inputs,
                written: outcome.written,
                loaded: outcome.loaded,
                balance_changes: outcome.balance_changes,
                checkpoint: 0,
                timestamp_ms: 0,
            };
            let mut response = SimulateTransactionResponse::default();
            if let Some(mask) = mask.subtree("transaction") {
                response.transaction = Some(render::transaction(&executed, &mask, Place::Fresh));
            }
            if mask.contains("suggested_gas_price") {
                response.suggested_gas_price = Some(view.chain.gas_price());
            }
            Ok(response)
        })
    }
}

fn refused(rejected: Rejected) -> Status {
    Status::invalid_argument(rejected.0)
}

/// Fills in what a transaction to be simulated may leave out.
fn complete(chain: &Chain, message: &mut TransactionMessage) -> Result<(), Status> {
    use sui_rpc::proto::sui::rpc::v2::transaction_kind::{Data, Kind};
    let sender = message.sender.clone().unwrap_or_else(|| Address::ZERO.to_string());
    message.sender = Some(sender.clone());
    message.version = message.version.or(Some(1));
    if message.expiration.is_none() {
        message.expiration = Some(sui_sdk_types::TransactionExpiration::None.into());
    }
    let payment = message.gas_payment.get_or_insert_with(GasPayment::default);
    payment.owner = payment.owner.clone().or(Some(sender));
    payment.price = payment.price.filter(|price| *price > 0).or_else(|| Some(chain.gas_price()));
    payment.budget = payment.budget.filter(|budget| *budget > 0).or(Some(BUDGET));
    let Some(kind) = message.kind.as_mut() else { return Ok(()) };
    if let Some(program) = kind.data.as_mut() {
        resolve_inputs(chain, program)?;
        // The TypeScript SDK leaves it to the data to say what kind it is.
        if matches!(program, Data::ProgrammableTransaction(_)) {
            kind.kind = Some(Kind::ProgrammableTransaction as i32);
        }
    }
    Ok(())
}

/// Object inputs may be given by id alone.
fn resolve_inputs(
    chain: &Chain,
    program: &mut sui_rpc::proto::sui::rpc::v2::transaction_kind::Data,
) -> Result<(), Status> {
    use sui_rpc::proto::sui::rpc::v2::{input::InputKind, transaction_kind::Data};
    let Data::ProgrammableTransaction(program) = program else { return Ok(()) };
    for input in &mut program.inputs {
        let known = input.kind.unwrap_or(0) != InputKind::Unknown as i32;
        let complete = input.version.is_some() && known;
        let Some(id) = input.object_id.as_deref().filter(|_| !complete) else { continue };
        let id: Address = id.parse().map_err(|_| invalid("inputs", "invalid object_id"))?;
        let object = chain.store.get(id);
        let object = object.ok_or_else(|| invalid("inputs", &format!("object {id} not found")))?;
        if let sui_sdk_types::Owner::Shared(initial) = object.owner() {
            input.kind = Some(InputKind::Shared as i32);
            input.version = Some(*initial);
            input.mutable = input.mutable.or(Some(true));
        } else {
            input.kind = Some(InputKind::ImmutableOrOwned as i32);
            input.version = Some(object.version());
            input.digest = Some(object.digest().to_string());
        }
    }
    Ok(())
}

/// Chooses the gas owner's largest coins that are no inputs, and all they have as the budget.
fn select_gas(chain: &Chain, transaction: &mut Transaction) -> Result<(), Status> {
    let used: Vec<Address> = match &transaction.kind {
        sui_sdk_types::TransactionKind::ProgrammableTransaction(program) => program
            .inputs
            .iter()
            .filter_map(|input| match input {
                sui_sdk_types::Input::ImmutableOrOwned(reference) => Some(*reference.object_id()),
                _ => None,
            })
            .collect(),
        _ => vec![],
    };
    let payment = &mut transaction.gas_payment;
    let type_ = StructTag::gas_coin();
    let mut coins: Vec<_> = chain
        .store
        .owned_of_type(payment.owner, &type_)
        .filter(|object| !used.contains(&object.object_id()))
        .filter_map(|object| coin_value(object, &type_).map(|value| (value, object)))
        .collect();
    coins.sort_by_key(|(value, object)| (std::cmp::Reverse(*value), object.object_id()));
    coins.truncate(COINS_MAX);
    let total: u64 = coins.iter().map(|(value, _)| *value).sum();
    if coins.is_empty() {
        let owner = payment.owner;
        return Err(Status::invalid_argument(format!(
            "Unable to perform gas selection due to insufficient SUI balance (in address balance or coins) for account {owner}"
        )));
    }
    payment.price = payment.price.max(chain.gas_price());
    payment.budget = total.min(BUDGET);
    let mut sum = 0;
    payment.objects = coins
        .iter()
        .take_while(|(value, _)| {
            let more = sum < BUDGET;
            sum += value;
            more
        })
        .map(|(_, o)| ObjectReference::new(o.object_id(), o.version(), o.digest()))
        .collect();
    Ok(())
}
