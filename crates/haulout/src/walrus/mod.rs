//! `haulout walrus`: blobs on the command line.

mod agent;
mod args;
mod blob;
mod files;
mod network;
mod offline;
mod quilt;
mod store;

use std::process::ExitCode;

use redstuff::{BlobId, Consistency, ShardCount};

pub(crate) use args::WalrusArgs;
use args::{Check, QuiltCommand, WalrusCommand};
pub(crate) use network::Network;

use crate::error::{Failure, Outcome};
use crate::online::online;

/// Runs a `haulout walrus` command.
pub(crate) fn run(args: &WalrusArgs) -> Outcome<ExitCode> {
    let network = args.network.as_str();
    let done = match &args.command {
        WalrusCommand::BlobId(args) => offline::blob_id(args),
        WalrusCommand::Encode(args) => offline::encode(args),
        WalrusCommand::Decode(args) => offline::decode(args),
        WalrusCommand::Info(args) => online(blob::info(args, network)),
        WalrusCommand::Read(args) => online(blob::read(args, network)),
        WalrusCommand::Store(args) => online(store::store(args, network)),
        WalrusCommand::Quilt(QuiltCommand::Create(args)) => quilt::create(args),
        WalrusCommand::Quilt(QuiltCommand::Ls(args)) => online(quilt::ls(args, network)),
        WalrusCommand::Quilt(QuiltCommand::Cat(args)) => online(quilt::cat(args, network)),
    };
    match done {
        Err(failure) if failure.is_closed_pipe() => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

fn shards(n: u16) -> Outcome<ShardCount> {
    ShardCount::new(n).map_err(|error| {
        Failure::new(format!("--shards {n} cannot be used"))
            .because(error)
            .hint("Walrus mainnet and testnet have 1000")
    })
}

/// A blob id in either text form.
fn blob_id(text: &str) -> Outcome<BlobId> {
    let number = !text.is_empty() && text.len() != 43 && text.bytes().all(|c| c.is_ascii_digit());
    let parsed = if number { BlobId::from_decimal(text) } else { text.parse() };
    parsed.map_err(|error| {
        Failure::new(format!("{text:?} is not a blob id"))
            .because(error)
            .hint("such as kWKlwfGY3WjMDh2rJ7bNFmiPIWi9kZvwuPtvbENsxWk")
    })
}

impl From<Check> for Consistency {
    fn from(check: Check) -> Self {
        match check {
            Check::Skip => Self::Skip,
            Check::Default => Self::Default,
            Check::Strict => Self::Strict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_ids_have_two_text_forms() {
        let id = BlobId([0x5b; 32]);
        assert_eq!(blob_id(&id.to_string()).unwrap(), id);
        assert_eq!(blob_id(&id.to_decimal()).unwrap(), id);
        assert_eq!(blob_id("0").unwrap(), BlobId([0; 32]));
        for bad in ["", "abc", "-1", "1e5", &"9".repeat(78), &"A".repeat(44)] {
            assert!(blob_id(bad).unwrap_err().report().contains("hint: "), "{bad}");
        }
    }
}
