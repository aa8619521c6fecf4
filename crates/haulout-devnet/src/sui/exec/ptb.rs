//! Runs the commands of a programmable transaction.

use sui_sdk_types::{
    Address, Argument, Command, CommandArgumentError, ExecutionError, Input, MoveCall, Owner,
    ProgrammableTransaction, StructTag, TypeTag,
};

use super::{Call, Failed, Failure, Session, Value, framework, publish};
use crate::sui::{
    archive,
    model::Kind,
    names::{decode, uleb},
    walrus,
};

/// The values of a running transaction.
struct Machine<'m, 'a> {
    session: &'m mut Session<'a>,
    gas: Value,
    inputs: Vec<Value>,
    results: Vec<Vec<Value>>,
}

/// Runs all commands.
pub(crate) fn run(
    session: &mut Session<'_>,
    transaction: &ProgrammableTransaction,
    gas: Option<Address>,
) -> Result<(), Box<Failed>> {
    let inputs = transaction.inputs.iter().map(|input| match input {
        Input::Pure(bytes) => Value::Data(bytes.clone()),
        Input::ImmutableOrOwned(reference) => Value::Object(*reference.object_id()),
        Input::Shared(shared) => Value::Object(shared.object_id()),
        _ => Value::Taken,
    });
    let inputs = inputs.collect();
    let gas = gas.map_or(Value::Taken, Value::Object);
    let mut machine = Machine { session, gas, inputs, results: Vec::new() };
    for (number, command) in transaction.commands.iter().enumerate() {
        let results = machine.command(command).map_err(|failure| {
            Box::new(Failed { error: failure.0, command: Some(number as u64) })
        })?;
        machine.results.push(results);
    }
    let leftovers = machine.session.check_leftovers();
    leftovers.map_err(|failure| Box::new(Failed { error: failure.0, command: None }))
}

impl Machine<'_, '_> {
    fn command(&mut self, command: &Command) -> Result<Vec<Value>, Failure> {
        match command {
            Command::MoveCall(call) => self.call(call),
            Command::TransferObjects(transfer) => {
                let to = self.address(&transfer.address, transfer.objects.len())?;
                self.transfer(&transfer.objects, to)?;
                Ok(vec![])
            }
            Command::SplitCoins(split) => self.split(&split.coin, &split.amounts),
            Command::MergeCoins(merge) => {
                self.merge(&merge.coin, &merge.coins_to_merge)?;
                Ok(vec![])
            }
            Command::Publish(publish) => {
                publish::publish(self.session, &publish.modules, &publish.dependencies)
            }
            Command::MakeMoveVector(vector) => self.vector(&vector.elements),
            _ => Err(Failure(ExecutionError::FeatureNotYetSupported)),
        }
    }

    /// The place a value is kept in.
    fn place(&mut self, argument: &Argument, position: usize) -> Result<&mut Value, Failure> {
        let bad = |kind| Failure::argument(position, kind);
        match *argument {
            Argument::Gas => Ok(&mut self.gas),
            Argument::Input(index) => self
                .inputs
                .get_mut(usize::from(index))
                .ok_or_else(|| bad(CommandArgumentError::IndexOutOfBounds { index })),
            Argument::Result(result) => match self.results.get_mut(usize::from(result)) {
                None => Err(bad(CommandArgumentError::IndexOutOfBounds { index: result })),
                Some(values) if values.len() == 1 => Ok(&mut values[0]),
                Some(_) => Err(bad(CommandArgumentError::InvalidResultArity { result })),
            },
            Argument::NestedResult(result, subresult) => {
                let values = self
                    .results
                    .get_mut(usize::from(result))
                    .ok_or_else(|| bad(CommandArgumentError::IndexOutOfBounds { index: result }))?;
                values.get_mut(usize::from(subresult)).ok_or_else(|| {
                    bad(CommandArgumentError::SecondaryIndexOutOfBounds { result, subresult })
                })
            }
        }
    }

    fn value(&mut self, argument: &Argument, position: usize) -> Result<Value, Failure> {
        match self.place(argument, position)?.clone() {
            Value::Taken => {
                Err(Failure::argument(position, CommandArgumentError::InvalidValueUsage))
            }
            value => Ok(value),
        }
    }

    fn data<T: serde::de::DeserializeOwned>(
        &mut self,
        argument: &Argument,
        position: usize,
    ) -> Result<T, Failure> {
        let Value::Data(bytes) = self.value(argument, position)? else {
            return Err(Failure::argument(position, CommandArgumentError::TypeMismatch));
        };
        decode(&bytes)
            .ok_or_else(|| Failure::argument(position, CommandArgumentError::InvalidBcsBytes))
    }

    fn address(&mut self, argument: &Argument, position: usize) -> Result<Address, Failure> {
        self.data(argument, position)
    }

    fn call(&mut self, call: &MoveCall) -> Result<Vec<Value>, Failure> {
        let mut args = Vec::with_capacity(call.arguments.len());
        for (position, argument) in call.arguments.iter().enumerate() {
            args.push(self.value(argument, position)?);
        }
        let Some(package) = self.session.env.packages.get(call.package) else {
            return Err(Failure(ExecutionError::FunctionNotFound));
        };
        let name = (call.module.as_str(), call.function.as_str());
        let types = &call.type_arguments;
        let mut view = Call::new(self.session, package.original, call.package, types, &mut args);
        let results = match package.kind {
            Kind::Framework => framework::call(&mut view, name),
            Kind::Walrus => walrus::call(&mut view, name),
            Kind::Archive => archive::call(&mut view, name),
            Kind::Wal | Kind::Opaque => Err(Failure(ExecutionError::FunctionNotFound)),
        }?;
        for (position, (argument, value)) in call.arguments.iter().zip(args).enumerate() {
            if matches!((&value, argument), (Value::Taken, Argument::Gas)) {
                let kind = CommandArgumentError::InvalidGasCoinUsage;
                return Err(Failure::argument(position, kind));
            }
            // Objects are in the session; what was moved away or changed in place is seen from now on.
            if !matches!(value, Value::Object(_)) {
                *self.place(argument, position)? = value;
            }
        }
        Ok(results)
    }

    fn transfer(&mut self, objects: &[Argument], to: Address) -> Result<(), Failure> {
        for (position, argument) in objects.iter().enumerate() {
            let Value::Object(id) = self.value(argument, position)? else {
                return Err(Failure::argument(position, CommandArgumentError::TypeMismatch));
            };
            let live = self.session.live(id);
            let public = live.is_some_and(|live| live.public);
            let shared = matches!(live.and_then(|l| l.owner), Some(Owner::Shared(_)));
            if !public || shared || !self.session.is_writable(id) {
                return Err(Failure(ExecutionError::InvalidTransferObject));
            }
            self.session.place(id, Owner::Address(to));
            *self.place(argument, position)? = Value::Taken;
        }
        Ok(())
    }

    /// A coin: its id, its type, its value.
    fn coin(
        &mut self,
        argument: &Argument,
        position: usize,
    ) -> Result<(Address, StructTag, u64), Failure> {
        let bad = || Failure::argument(position, CommandArgumentError::TypeMismatch);
        let Value::Object(id) = self.value(argument, position)? else { return Err(bad()) };
        let type_ = self.session.live(id).map(|live| live.type_.clone()).ok_or_else(bad)?;
        if type_.is_coin().is_none() {
            return Err(bad());
        }
        let (_, value): (Address, u64) = self.session.read(id, &type_).ok_or_else(bad)?;
        Ok((id, type_, value))
    }

    fn split(&mut self, coin: &Argument, amounts: &[Argument]) -> Result<Vec<Value>, Failure> {
        let (id, type_, mut value) = self.coin(coin, 0)?;
        let mut parts = Vec::with_capacity(amounts.len());
        for (position, amount) in amounts.iter().enumerate() {
            let amount: u64 = self.data(amount, position + 1)?;
            value = value
                .checked_sub(amount)
                .ok_or(Failure(ExecutionError::InsufficientCoinBalance))?;
            let part = self.session.fresh_id();
            self.session.create(part, type_.clone(), true, &(part, amount));
            parts.push(Value::Object(part));
        }
        self.session.write(id, &(id, value));
        Ok(parts)
    }

    fn merge(&mut self, into: &Argument, coins: &[Argument]) -> Result<(), Failure> {
        let (id, type_, mut total) = self.coin(into, 0)?;
        for (position, argument) in coins.iter().enumerate() {
            let (other, other_type, value) = self.coin(argument, position + 1)?;
            if other_type != type_ || other == id {
                let kind = CommandArgumentError::TypeMismatch;
                return Err(Failure::argument(position + 1, kind));
            }
            total = total.checked_add(value).ok_or(Failure(ExecutionError::CoinBalanceOverflow))?;
            self.session.delete(other);
            *self.place(argument, position + 1)? = Value::Taken;
        }
        self.session.write(id, &(id, total));
        Ok(())
    }

    /// A vector of plain values. Vectors of objects are not used by any modelled function.
    fn vector(&mut self, elements: &[Argument]) -> Result<Vec<Value>, Failure> {
        let mut bytes = uleb(elements.len() as u64);
        for (position, argument) in elements.iter().enumerate() {
            match self.value(argument, position)? {
                Value::Data(data) => bytes.extend_from_slice(&data),
                _ => return Err(Failure(ExecutionError::FeatureNotYetSupported)),
            }
        }
        Ok(vec![Value::Data(bytes)])
    }
}

/// The type argument of a generic coin function.
pub(super) fn coin_type(types: &[TypeTag]) -> Result<StructTag, Failure> {
    match types {
        [inner] => Ok(StructTag::coin(inner.clone())),
        _ => Err(Failure(ExecutionError::TypeArityMismatch)),
    }
}
