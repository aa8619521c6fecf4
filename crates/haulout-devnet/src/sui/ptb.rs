//! Builds the devnet's own transactions.

use serde::Serialize;
use sui_sdk_types::{
    Address, Argument, Command, GasPayment, Identifier, Input, MoveCall, ObjectReference, Owner,
    ProgrammableTransaction, SharedInput, SplitCoins, StructTag, Transaction,
    TransactionExpiration, TransactionKind, TransferObjects,
};

use super::{
    exec::coin_value,
    model::Chain,
    names::{CLOCK, encode},
};

/// A transaction under construction, against the chain as it is.
pub(crate) struct Ptb<'a> {
    chain: &'a Chain,
    sender: Address,
    inputs: Vec<Input>,
    commands: Vec<Command>,
}

impl<'a> Ptb<'a> {
    pub(crate) fn new(chain: &'a Chain, sender: Address) -> Self {
        Self { chain, sender, inputs: Vec::new(), commands: Vec::new() }
    }

    fn input(&mut self, input: Input) -> Argument {
        self.inputs.push(input);
        Argument::Input((self.inputs.len() - 1) as u16)
    }

    fn command(&mut self, command: Command) -> Argument {
        self.commands.push(command);
        Argument::Result((self.commands.len() - 1) as u16)
    }

    pub(crate) fn pure<T: Serialize + ?Sized>(&mut self, value: &T) -> Argument {
        self.input(Input::Pure(encode(value)))
    }

    /// A shared object.
    pub(crate) fn shared(&mut self, id: Address, mutable: bool) -> Option<Argument> {
        match self.chain.store.get(id)?.owner() {
            Owner::Shared(version) => {
                Some(self.input(Input::Shared(SharedInput::new(id, *version, mutable))))
            }
            _ => None,
        }
    }

    pub(crate) fn clock(&mut self) -> Argument {
        self.input(Input::Shared(SharedInput::new(CLOCK, 1, false)))
    }

    /// An object of the sender, or an immutable one.
    pub(crate) fn owned(&mut self, id: Address) -> Option<Argument> {
        let object = self.chain.store.get(id)?;
        let reference = ObjectReference::new(id, object.version(), object.digest());
        Some(self.input(Input::ImmutableOrOwned(reference)))
    }

    fn largest(&self, type_: &StructTag) -> Option<Address> {
        let coins = self.chain.store.owned_of_type(self.sender, type_);
        coins.max_by_key(|coin| coin_value(coin, type_)).map(|coin| coin.object_id())
    }

    /// The sender's largest coin of this type.
    pub(crate) fn largest_coin(&mut self, type_: &StructTag) -> Option<Argument> {
        let id = self.largest(type_)?;
        self.owned(id)
    }

    pub(crate) fn call(
        &mut self,
        package: Address,
        module: &'static str,
        function: &'static str,
        arguments: Vec<Argument>,
    ) -> Argument {
        self.command(Command::MoveCall(MoveCall {
            package,
            module: Identifier::from_static(module),
            function: Identifier::from_static(function),
            type_arguments: vec![],
            arguments,
        }))
    }

    pub(crate) fn split(&mut self, coin: Argument, amount: u64) -> Argument {
        let amounts = vec![self.pure(&amount)];
        self.command(Command::SplitCoins(SplitCoins { coin, amounts }))
    }

    pub(crate) fn transfer(&mut self, objects: Vec<Argument>, to: Address) {
        let address = self.pure(&to);
        self.command(Command::TransferObjects(TransferObjects { objects, address }));
    }

    #[cfg(test)]
    pub(crate) fn push(&mut self, command: Command) -> Argument {
        self.command(command)
    }

    /// The transaction, paid with the sender's largest coin.
    pub(crate) fn finish(self, budget: u64) -> Option<Transaction> {
        let gas = self.chain.store.get(self.largest(&StructTag::gas_coin())?)?;
        let (inputs, commands) = (self.inputs, self.commands);
        let program = ProgrammableTransaction { inputs, commands };
        let reference = ObjectReference::new(gas.object_id(), gas.version(), gas.digest());
        Some(Transaction {
            kind: TransactionKind::ProgrammableTransaction(program),
            sender: self.sender,
            gas_payment: GasPayment {
                objects: vec![reference],
                owner: self.sender,
                price: self.chain.gas_price(),
                budget,
            },
            expiration: TransactionExpiration::None,
        })
    }
}
