//! A Move call: its arguments, as the modelled functions take them.

use serde::{Serialize, de::DeserializeOwned};
use sui_sdk_types::{Address, CommandArgumentError, StructTag, TypeTag};

use super::{Failure, Session};
use crate::sui::names::{decode, encode};

/// A value of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// An object, in the session.
    Object(Address),
    /// Plain data.
    Data(Vec<u8>),
    /// Moved away.
    Taken,
}

/// One call of a modelled function.
#[derive(Debug)]
pub(crate) struct Call<'c, 'a> {
    pub(crate) session: &'c mut Session<'a>,
    /// The package under its original id: what types and abort locations name.
    pub(crate) package: Address,
    /// The package that was called.
    pub(crate) called: Address,
    pub(crate) type_arguments: &'c [TypeTag],
    args: &'c mut [Value],
}

impl<'c, 'a> Call<'c, 'a> {
    pub(crate) fn new(
        session: &'c mut Session<'a>,
        package: Address,
        called: Address,
        type_arguments: &'c [TypeTag],
        args: &'c mut [Value],
    ) -> Self {
        Self { session, package, called, type_arguments, args }
    }

    /// Fails unless there are `count` arguments.
    pub(crate) fn arity(&self, count: usize) -> Result<(), Failure> {
        if self.args.len() == count {
            Ok(())
        } else {
            Err(Failure(sui_sdk_types::ExecutionError::ArityMismatch))
        }
    }

    /// A plain argument.
    pub(crate) fn data<T: DeserializeOwned>(&self, position: usize) -> Result<T, Failure> {
        let bytes = match self.args.get(position) {
            Some(Value::Data(bytes)) => bytes,
            Some(Value::Taken) => {
                return Err(bad(position, CommandArgumentError::InvalidValueUsage));
            }
            _ => return Err(bad(position, CommandArgumentError::TypeMismatch)),
        };
        decode(bytes).ok_or_else(|| bad(position, CommandArgumentError::InvalidBcsBytes))
    }

    /// Gives a plain argument, taken by mutable reference, another value.
    pub(crate) fn set_data<T: Serialize>(&mut self, position: usize, value: &T) {
        if let Some(argument @ Value::Data(_)) = self.args.get_mut(position) {
            *argument = Value::data(value);
        }
    }

    /// The id of an object argument.
    pub(crate) fn id(&self, position: usize) -> Result<Address, Failure> {
        match self.args.get(position) {
            Some(Value::Object(id)) => Ok(*id),
            Some(Value::Taken) => Err(bad(position, CommandArgumentError::InvalidValueUsage)),
            _ => Err(bad(position, CommandArgumentError::TypeMismatch)),
        }
    }

    /// An object by reference.
    pub(crate) fn object<T: DeserializeOwned>(
        &self,
        position: usize,
        type_: &StructTag,
    ) -> Result<(Address, T), Failure> {
        let id = self.id(position)?;
        let value = self.session.read(id, type_);
        value.map(|v| (id, v)).ok_or_else(|| bad(position, CommandArgumentError::TypeMismatch))
    }

    /// An object by mutable reference. Write it back with [`Self::put`].
    pub(crate) fn object_mut<T: DeserializeOwned>(
        &self,
        position: usize,
        type_: &StructTag,
    ) -> Result<(Address, T), Failure> {
        let found = self.object(position, type_)?;
        if !self.session.is_writable(found.0) {
            return Err(bad(position, CommandArgumentError::InvalidObjectByMutRef));
        }
        Ok(found)
    }

    pub(crate) fn put<T: Serialize>(&mut self, id: Address, value: &T) {
        self.session.write(id, value);
    }

    /// An object by value. The caller deletes, wraps or places it.
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        position: usize,
        type_: &StructTag,
    ) -> Result<(Address, T), Failure> {
        let found = self.object(position, type_)?;
        if !self.session.is_writable(found.0) {
            return Err(bad(position, CommandArgumentError::InvalidObjectByValue));
        }
        self.args[position] = Value::Taken;
        Ok(found)
    }

    /// An object by value whose contents do not matter.
    pub(crate) fn take_any(
        &mut self,
        position: usize,
        type_: &StructTag,
    ) -> Result<Address, Failure> {
        let id = self.id(position)?;
        if self.session.live(id).is_none_or(|live| live.type_ != *type_) {
            return Err(bad(position, CommandArgumentError::TypeMismatch));
        }
        if !self.session.is_writable(id) {
            return Err(bad(position, CommandArgumentError::InvalidObjectByValue));
        }
        self.args[position] = Value::Taken;
        Ok(id)
    }

    /// Makes an object that does not have `store` unless `public`.
    pub(crate) fn create<T: Serialize>(
        &mut self,
        id: Address,
        type_: StructTag,
        public: bool,
        value: &T,
    ) -> Value {
        self.session.create(id, type_, public, value);
        Value::Object(id)
    }

    /// An abort in this package.
    pub(crate) fn abort<T>(
        &self,
        module: &'static str,
        function: &'static str,
        code: u64,
    ) -> Result<T, Failure> {
        Err(Failure::abort(self.package, module, function, code))
    }

    /// `assert!(ok, code)` in this package.
    pub(crate) fn assert(
        &self,
        ok: bool,
        module: &'static str,
        function: &'static str,
        code: u64,
    ) -> Result<(), Failure> {
        if ok { Ok(()) } else { self.abort(module, function, code) }
    }
}

impl Value {
    /// Plain data.
    pub(crate) fn data<T: Serialize>(value: &T) -> Self {
        Self::Data(encode(value))
    }
}

fn bad(position: usize, kind: CommandArgumentError) -> Failure {
    Failure::argument(position, kind)
}
