//! What is checked before a transaction may run. A transaction that fails here leaves no trace.

use std::collections::BTreeSet;

use sui_crypto::{SuiVerifier, UserSignatureVerifier};
use sui_sdk_types::{
    Address, Command, Input, Mutability, Object, ObjectReference, Owner, ProgrammableTransaction,
    SignedTransaction, StructTag, Transaction, TransactionExpiration, TransactionKind,
    UserSignature,
};

use super::session::Env;
use crate::sui::names::{CLOCK, decode, encode};

/// Sui's limits: bytes of a transaction, commands, inputs, gas coins.
const TRANSACTION_BYTES_MAX: usize = 128 * 1024;
const COMMANDS_MAX: usize = 1_024;
const INPUTS_MAX: usize = 2_048;
const GAS_COINS_MAX: usize = 256;
/// Smallest and largest gas budget in MIST.
const BUDGET_MIN: u64 = 1_000_000;
const BUDGET_MAX: u64 = 50_000_000_000;

/// What a transaction works on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    /// Objects, and whether the transaction may change them.
    pub(crate) objects: Vec<(Object, bool)>,
    /// Gas coins: the first pays, the others are merged into it.
    pub(crate) gas: Vec<Object>,
}

impl Inputs {
    /// Whether the clock is among them.
    pub(crate) fn reads_clock(&self) -> bool {
        self.objects.iter().any(|(object, _)| object.object_id() == CLOCK)
    }
}

/// Checks signatures: of the sender, and of the gas owner if that is somebody else.
pub(crate) fn signatures(signed: &SignedTransaction) -> Result<(), String> {
    let transaction = &signed.transaction;
    let mut wanted = BTreeSet::from([transaction.sender, transaction.gas_payment.owner]);
    if signed.signatures.len() != wanted.len() {
        let (expected, actual) = (wanted.len(), signed.signatures.len());
        return Err(format!("Expect {expected} signer signatures but got {actual}"));
    }
    let verifier = UserSignatureVerifier::new();
    for signature in &signed.signatures {
        let signer = signer(signature).ok_or("Unsupported signature scheme")?;
        if !wanted.remove(&signer) {
            return Err(format!(
                "Required Signature from {} is absent",
                wanted.first().copied().unwrap_or(signer)
            ));
        }
        verifier
            .verify_transaction(transaction, signature)
            .map_err(|error| format!("Signature is not valid: {error}"))?;
    }
    Ok(())
}

fn signer(signature: &UserSignature) -> Option<Address> {
    use sui_sdk_types::SimpleSignature;
    match signature {
        UserSignature::Simple(simple) => match simple {
            SimpleSignature::Ed25519 { public_key, .. } => Some(public_key.derive_address()),
            SimpleSignature::Secp256k1 { public_key, .. } => Some(public_key.derive_address()),
            SimpleSignature::Secp256r1 { public_key, .. } => Some(public_key.derive_address()),
            _ => None,
        },
        UserSignature::Multisig(multisig) => Some(multisig.committee().derive_address()),
        _ => None,
    }
}

/// Checks everything but the signatures, and fetches the inputs.
///
/// # Errors
/// What is wrong, in words close to a full node's.
pub(crate) fn check(env: Env<'_>, transaction: &Transaction, price: u64) -> Result<Inputs, String> {
    let TransactionKind::ProgrammableTransaction(program) = &transaction.kind else {
        return Err("Transaction kind is not supported in user transactions".into());
    };
    let size = encode(transaction).len();
    if size > TRANSACTION_BYTES_MAX {
        return Err(format!(
            "Size limit exceeded: serialized transaction size is {size}, at most {TRANSACTION_BYTES_MAX}"
        ));
    }
    if program.commands.is_empty() {
        return Err("Empty command in the PTB".into());
    }
    if program.commands.len() > COMMANDS_MAX || program.inputs.len() > INPUTS_MAX {
        return Err(
            "Size limit exceeded: maximum commands or inputs in a programmable transaction".into(),
        );
    }
    expiration(env, transaction)?;
    let gas = gas(env, transaction, price)?;
    let objects = objects(env, program, transaction)?;
    Ok(Inputs { objects, gas })
}

fn expiration(env: Env<'_>, transaction: &Transaction) -> Result<(), String> {
    match &transaction.expiration {
        TransactionExpiration::None => Ok(()),
        TransactionExpiration::Epoch(epoch) if *epoch >= env.epoch => Ok(()),
        TransactionExpiration::ValidDuring { min_epoch, max_epoch, .. }
            if min_epoch.is_none_or(|min| min <= env.epoch)
                && max_epoch.is_none_or(|max| max >= env.epoch) =>
        {
            Ok(())
        }
        _ => Err("Transaction Expired".into()),
    }
}

fn gas(env: Env<'_>, transaction: &Transaction, price: u64) -> Result<Vec<Object>, String> {
    let payment = &transaction.gas_payment;
    if payment.price < price {
        let given = payment.price;
        return Err(format!("Gas price {given} under reference gas price (RGP) {price}"));
    }
    if payment.budget < BUDGET_MIN.min(1_000 * price) {
        return Err(format!("Gas budget: {} is lower than min: {}", payment.budget, 1_000 * price));
    }
    if payment.budget > BUDGET_MAX {
        return Err(format!("Gas budget: {} is higher than max: {BUDGET_MAX}", payment.budget));
    }
    if payment.objects.is_empty() {
        return Err("Gas object is missing".into());
    }
    if payment.objects.len() > GAS_COINS_MAX {
        return Err("Size limit exceeded: maximum number of gas payment objects".into());
    }
    let mut balance = 0u64;
    let mut coins = Vec::new();
    for reference in &payment.objects {
        let object = current(env, reference)?;
        if *object.owner() != Owner::Address(payment.owner) {
            return Err(not_owned(&object, payment.owner));
        }
        let value = coin_value(&object, &StructTag::gas_coin());
        let value =
            value.ok_or("Gas object is not an owned object with owner, or not a gas coin")?;
        balance = balance.saturating_add(value);
        coins.push(object);
    }
    if balance < payment.budget {
        return Err(format!(
            "Balance of gas object {balance} is lower than the needed amount: {}",
            payment.budget
        ));
    }
    Ok(coins)
}

fn objects(
    env: Env<'_>,
    program: &ProgrammableTransaction,
    transaction: &Transaction,
) -> Result<Vec<(Object, bool)>, String> {
    let gas: BTreeSet<Address> =
        transaction.gas_payment.objects.iter().map(|r| *r.object_id()).collect();
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for input in &program.inputs {
        let (object, writable) = match input {
            Input::Pure(bytes) if bytes.len() <= 16 * 1024 => continue,
            Input::Pure(_) => return Err("Size limit exceeded: pure argument of 16 KiB".into()),
            Input::ImmutableOrOwned(reference) => owned(env, reference, transaction.sender)?,
            Input::Shared(input) => {
                let id = input.object_id();
                let object = env.store.get(id).ok_or_else(|| missing(id))?;
                if *object.owner() != Owner::Shared(input.version()) {
                    return Err(format!(
                        "Could not find the referenced object {id} as a shared object with initial version {}",
                        input.version()
                    ));
                }
                (object.clone(), input.mutability() != Mutability::Immutable)
            }
            _ => return Err("This kind of input is not supported by the devnet".into()),
        };
        let id = object.object_id();
        if !seen.insert(id) || gas.contains(&id) {
            return Err(format!(
                "Mutable object {id} cannot appear more than one in one transaction"
            ));
        }
        objects.push((object, writable));
    }
    for command in &program.commands {
        if let Command::MoveCall(call) = command
            && env.packages.get(call.package).is_none()
        {
            return Err(format!("Dependent package not found on-chain: {}", missing(call.package)));
        }
    }
    Ok(objects)
}

fn owned(
    env: Env<'_>,
    reference: &ObjectReference,
    sender: Address,
) -> Result<(Object, bool), String> {
    let object = current(env, reference)?;
    match *object.owner() {
        Owner::Immutable => Ok((object, false)),
        Owner::Address(owner) if owner == sender => Ok((object, true)),
        Owner::Address(_) => Err(not_owned(&object, sender)),
        _ => {
            let id = object.object_id();
            Err(format!("Object {id} is owned by object or shared: it cannot be given as owned"))
        }
    }
}

/// The object, if the reference is to its present version.
fn current(env: Env<'_>, reference: &ObjectReference) -> Result<Object, String> {
    let id = *reference.object_id();
    let object = env.store.get(id).ok_or_else(|| missing(id))?;
    if object.version() != reference.version() || object.digest() != *reference.digest() {
        return Err(format!(
            "Object ID {id} Version 0x{:x} Digest {} is not available for consumption, current version: 0x{:x}",
            reference.version(),
            reference.digest(),
            object.version(),
        ));
    }
    Ok(object.clone())
}

fn missing(id: Address) -> String {
    format!("Could not find the referenced object {id} at version None")
}

fn not_owned(object: &Object, expected: Address) -> String {
    let (id, owner) = (object.object_id(), object.owner());
    let owner = match owner {
        Owner::Address(owner) => owner.to_string(),
        other => format!("{other:?}"),
    };
    format!(
        "Transaction was not signed by the correct sender: Object {id} is owned by account address {owner}, but given owner/signer address is {expected}"
    )
}

/// The value of a coin of this type.
pub(crate) fn coin_value(object: &Object, type_: &StructTag) -> Option<u64> {
    let data = object.as_struct().filter(|data| data.object_type() == type_)?;
    decode::<(Address, u64)>(data.contents()).map(|(_, value)| value)
}
