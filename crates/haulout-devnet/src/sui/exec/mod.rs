//! Executes transactions: a native model of the Move functions that are used here, not a Move VM.
//!
//! Every function of a modelled package is Rust code with the checks and abort codes of the
//! contract; anything else fails with `FunctionNotFound`. What comes out are real effects:
//! versions, digests, owners, events and gas as a full node would report them.

mod call;
mod check;
mod effects;
mod framework;
mod gas;
mod ptb;
mod publish;
mod session;

pub(crate) use call::{Call, Value};
pub(crate) use check::{Inputs, check, coin_value, signatures};
pub(crate) use effects::{Outcome, execute, genesis_outcome, system_change};
pub(crate) use gas::metered_price;
pub(crate) use publish::kind_of;
pub(crate) use session::{Env, Session, field_id};

use sui_sdk_types::{Address, CommandArgumentError, ExecutionError, Identifier, MoveLocation};

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) ExecutionError);

/// What failed, and at which command.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ExecutionError,
    pub(crate) command: Option<u64>,
}

impl Failure {
    /// An abort in `package::module::function`.
    pub(crate) fn abort(
        package: Address,
        module: &'static str,
        function: &'static str,
        code: u64,
    ) -> Self {
        let location = MoveLocation {
            package,
            module: Identifier::from_static(module),
            function: 0,
            instruction: 0,
            function_name: Some(Identifier::from_static(function)),
        };
        Self(ExecutionError::MoveAbort { location, code })
    }

    /// The argument at `position` is not what the function takes.
    pub(crate) fn argument(position: usize, kind: CommandArgumentError) -> Self {
        let argument = u16::try_from(position).unwrap_or(u16::MAX);
        Self(ExecutionError::CommandArgumentError { argument, kind })
    }
}
