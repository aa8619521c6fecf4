//! Why a transaction was not made.

use crate::{
    ObjectId,
    proof::StoreError,
    rpc::{Fault, RpcError},
};

/// Why a transaction was not made, or not seen to its end.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// A key that cannot be used. Never says anything about the key itself.
    #[error("the signing key {origin} cannot be used: {reason}")]
    Key {
        /// Where it was looked for.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The external signer did not sign.
    #[error("the signer command {command} failed: {reason}")]
    Signer {
        /// The command, without its arguments.
        command: String,
        /// What is wrong.
        reason: String,
    },
    /// Not enough coins.
    #[error("the account {account} has {has} {coin}; {needs} are needed")]
    Coins {
        /// The account.
        account: ObjectId,
        /// `MIST of SUI` or `FROST of WAL`.
        coin: &'static str,
        /// What it has.
        has: u64,
        /// What it takes.
        needs: u64,
    },
    /// The person said no.
    #[error("not confirmed: {0}")]
    Declined(String),
    /// The chain says no, before or after it was sent.
    #[error("{what} was refused")]
    Refused {
        /// The purpose.
        what: String,
        /// In the node's words.
        #[source]
        source: RpcError,
    },
    /// Sent, but its end was not seen. The journal has it: the same command again goes on
    /// where this one stopped.
    #[error("{what}: transaction {digest} was sent, but its end was not seen; run it again")]
    Unfinished {
        /// The purpose.
        what: String,
        /// The transaction.
        digest: String,
        /// What happened.
        #[source]
        source: RpcError,
    },
    /// Executed, but without the expected result.
    #[error("{what}: transaction {digest} made no {missing}")]
    Result {
        /// The purpose.
        what: String,
        /// The transaction.
        digest: String,
        /// What is missing.
        missing: &'static str,
    },
    /// No usable answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// Cannot be put together.
    #[error("the transaction cannot be built: {0}")]
    Build(String),
    /// The journal does not work.
    #[error(transparent)]
    Journal(#[from] StoreError),
}

impl TxError {
    /// The abort code, if a contract's module of that name ended the transaction.
    #[must_use]
    pub fn abort_code(&self, module: &str) -> Option<u64> {
        match self {
            Self::Refused { source, .. } | Self::Rpc(source) => source.abort_code(module),
            _ => None,
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Rpc(error) => error.fault,
            Self::Unfinished { .. } | Self::Journal(_) => Fault::Unavailable,
            Self::Result { .. } => Fault::Untrusted,
            Self::Key { .. }
            | Self::Signer { .. }
            | Self::Coins { .. }
            | Self::Declined(_)
            | Self::Refused { .. }
            | Self::Build(_) => Fault::Refused,
        }
    }
}
