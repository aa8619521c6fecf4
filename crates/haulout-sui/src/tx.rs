//! Transactions: built, tried, shown, signed, sent, waited for; and not twice.
//!
//! Every transaction has a *purpose*, a text such as `register <blob id> 5 epochs`. Before
//! it is sent, its signed bytes are written to the journal under that purpose. Whoever
//! comes back after a crash with the same purpose finds them, looks the transaction up and,
//! if it is unknown, sends exactly the same bytes: the chain executes them once.

mod calls;
mod error;
mod journal;
mod registrar;
mod signer;
mod wallet;

pub use calls::{Certification, Ptb, Update};
pub use error::TxError;
pub use registrar::SuiRegistrar;
pub use signer::{KeySource, Signer};
pub use wallet::{Confirm, Estimate, Outcome, Request, Wallet};

#[cfg(test)]
mod tests;
