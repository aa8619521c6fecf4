//! The command line of `haulout devnet`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use haulout_devnet::storage::Lie;

/// Where a devnet lives unless it is told.
const DIR: &str = "haulout-devnet";

/// `haulout devnet …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DevnetCommand {
    /// Run a Walrus committee and a Sui full node on this machine, until Ctrl-C
    Up(UpArgs),
    /// Say how a running devnet is
    Status(ControlArgs),
    /// Make something go wrong with a storage node; without faults, make it well again
    Fault(FaultArgs),
    /// Make something go wrong with the full node; without faults, make it well again
    FullNode(FullNodeArgs),
    /// Begin the next Walrus epoch: shards move to other nodes
    Epoch(ControlArgs),
    /// Begin the next epoch of Sui: some validators have other keys
    SuiEpoch(ControlArgs),
    /// Give a Sui account SUI and WAL
    Fund {
        /// The account, 0x…
        address: String,
        /// How to reach the devnet.
        #[command(flatten)]
        control: ControlArgs,
    },
}

/// `haulout devnet up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where keys, slivers and the network file go
    #[arg(long, value_name = "DIR", default_value = DIR)]
    pub(crate) dir: PathBuf,
    /// How many shards there are (the public networks have 1000)
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) shards: u16,
    /// How many storage nodes there are
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) nodes: usize,
    /// Shards of each node instead, e.g. 1,2,3,4
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', conflicts_with = "nodes")]
    pub(crate) weights: Option<Vec<u16>>,
    /// How many validators Sui has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=150))]
    pub(crate) validators: u8,
    /// Make Sui's checkpoints without the commitment that single objects are proven with, as
    /// older networks do
    #[arg(long)]
    pub(crate) no_artifacts: bool,
    /// The address that the storage nodes listen at
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) listen: std::net::IpAddr,
    /// Where the full node listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) rpc: SocketAddr,
    /// Where `haulout devnet fault` and the like are taken
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) control: SocketAddr,
    /// What the chain's ids, and the account's key, derive from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one line of JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// What is logged to standard error
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,
}

/// How to reach a running devnet.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// The directory it was started with
    #[arg(long, value_name = "DIR", default_value = DIR)]
    pub(crate) dir: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `haulout devnet full-node`.
#[derive(Debug, Args)]
pub(crate) struct FullNodeArgs {
    /// Answer nothing
    #[arg(long)]
    pub(crate) gone: bool,
    /// Show the chain as it was at this checkpoint
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) stale_at: Option<u64>,
    /// Have nothing below this checkpoint
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) pruned_below: Option<u64>,
    /// Have no service for proofs of single objects
    #[arg(long)]
    pub(crate) no_proofs: bool,
    /// Change a bit of every object
    #[arg(long)]
    pub(crate) forged_object: bool,
    /// Give objects a version one too high
    #[arg(long)]
    pub(crate) wrong_version: bool,
    /// Say that somebody else owns every object
    #[arg(long)]
    pub(crate) wrong_owner: bool,
    /// Answer with another object than the one asked for
    #[arg(long)]
    pub(crate) other_object: bool,
    /// Leave the end of proofs out
    #[arg(long)]
    pub(crate) truncated_proof: bool,
    /// Change the signatures of checkpoints
    #[arg(long)]
    pub(crate) bad_signature: bool,
    /// Serve the same history signed by other validators
    #[arg(long)]
    pub(crate) fork: bool,
    /// How to reach the devnet.
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// `haulout devnet fault`.
#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// The node's number, from 0
    pub(crate) node: usize,
    /// Close its port and cut its connections
    #[arg(long)]
    pub(crate) down: bool,
    /// Wait this long before every answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) delay: u64,
    /// Send no faster than this, in bytes a second
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) rate: u64,
    /// Take requests and answer none
    #[arg(long)]
    pub(crate) silent: bool,
    /// Serve wrong slivers
    #[arg(long, value_name = "HOW")]
    pub(crate) slivers: Option<Wrong>,
    /// Serve wrong metadata
    #[arg(long, value_name = "HOW")]
    pub(crate) metadata: Option<Wrong>,
    /// Sign confirmations with another key
    #[arg(long)]
    pub(crate) wrong_signature: bool,
    /// Lose the slivers of this shard; may be repeated
    #[arg(long = "missing-shard", value_name = "SHARD")]
    pub(crate) missing_shards: Vec<u16>,
    /// Refuse every request with this HTTP status, e.g. 429 or 503
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(400..=599))]
    pub(crate) refuse: Option<u16>,
    /// Seconds in the `Retry-After` of these refusals
    #[arg(long, value_name = "SECONDS", requires = "refuse")]
    pub(crate) retry_after: Option<u32>,
    /// Length of the text of these refusals, in bytes
    #[arg(long, value_name = "BYTES", requires = "refuse", default_value_t = 0)]
    pub(crate) refusal_bytes: u64,
    /// Have this blob on the deny list; may be repeated
    #[arg(long = "deny", value_name = "BLOB_ID")]
    pub(crate) denied: Vec<String>,
    /// Present a certificate of another key
    #[arg(long)]
    pub(crate) impostor: bool,
    /// How to reach the devnet.
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// How an answer is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wrong {
    /// One bit is flipped
    Flip,
    /// The second half is missing
    Truncate,
    /// No BCS at all
    Garbage,
    /// Genuine, but of another sliver or blob
    Other,
}

impl From<Wrong> for Lie {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Flip => Self::Flip,
            Wrong::Truncate => Self::Truncate,
            Wrong::Garbage => Self::Garbage,
            Wrong::Other => Self::Other,
        }
    }
}
