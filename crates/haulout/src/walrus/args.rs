//! What can be said to `haulout walrus`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::wallet::WalletArgs;

/// `haulout walrus …`.
#[derive(Debug, Args)]
pub(crate) struct WalrusArgs {
    /// The network, where one is needed: `mainnet`, `testnet`, or a file that describes a network or a committee
    #[arg(
        long,
        global = true,
        value_name = "FILE|NAME",
        env = "HAULOUT_WALRUS_NETWORK",
        default_value = "mainnet"
    )]
    pub(crate) network: String,
    #[command(subcommand)]
    pub(crate) command: WalrusCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum WalrusCommand {
    /// Print the blob id a file has on a network of N shards
    BlobId(BlobIdArgs),
    /// Write a file's metadata and all its slivers into a directory
    Encode(EncodeArgs),
    /// Put a file together again from slivers
    Decode(DecodeArgs),
    /// Say what the network knows of a blob
    Info(InfoArgs),
    /// Read a blob, or a part of one, through the agent on this machine or from the storage nodes
    Read(ReadArgs),
    /// Store files, each as a blob
    Store(StoreArgs),
    /// Many small files in one blob
    #[command(subcommand)]
    Quilt(QuiltCommand),
}

/// `walrus blob-id`.
#[derive(Debug, Args)]
pub(crate) struct BlobIdArgs {
    /// Number of shards; the public networks have 1000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) shards: u16,
    /// A file; `-` for standard input
    pub(crate) file: PathBuf,
    /// Print JSON: the id in both forms, sizes, what is billed
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walrus encode`.
#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    /// Number of shards; the public networks have 1000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) shards: u16,
    /// Where to write `metadata.bcs`, `primary-<i>.bcs` and `secondary-<j>.bcs`
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A file; `-` for standard input
    pub(crate) file: PathBuf,
    /// Print JSON instead of the blob id alone
    #[arg(long)]
    pub(crate) json: bool,
}

/// How thoroughly to check that a blob was encoded correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Not at all
    Skip,
    /// Every systematic sliver must have its hash: all who succeed get the same bytes
    Default,
    /// Encode again and compare the blob id: a badly encoded blob is never read
    Strict,
}

/// `walrus decode`.
#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Number of shards; the public networks have 1000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) shards: u16,
    /// The blob's id: 43 characters of base64, or the number on chain
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) blob_id: String,
    /// The blob's metadata, with or without its id in front
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata: PathBuf,
    /// Where to write the blob; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// How thoroughly to check the result
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) check: Check,
    /// Slivers of either kind, in any order
    #[arg(required = true, value_name = "SLIVER")]
    pub(crate) slivers: Vec<PathBuf>,
    /// Print JSON about the result (to standard error if the blob goes to standard output)
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walrus info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The blob's id: 43 characters of base64, or the number on chain
    #[arg(allow_hyphen_values = true)]
    pub(crate) blob_id: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walrus read`.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// The blob's id: 43 characters of base64, or the number on chain
    #[arg(allow_hyphen_values = true)]
    pub(crate) blob_id: String,
    /// Only bytes A to B (B excluded), from the slivers that hold them
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    pub(crate) range: Option<String>,
    /// Where to write; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// How thoroughly to check a whole blob; an agent checks at least as the default does
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) check: Check,
    /// Read from the storage nodes even if an agent on this machine reads from this network
    #[arg(long)]
    pub(crate) direct: bool,
    /// Address of that agent
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "HAULOUT_HTTP_LISTEN",
        default_value = "127.0.0.1:5299"
    )]
    pub(crate) agent: String,
    /// Print JSON about the read (to standard error if the blob goes to standard output)
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walrus store`.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Files; `-` for standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// For how many epochs, the current one included
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=53))]
    pub(crate) epochs: u32,
    /// Let the owner delete it before its time
    #[arg(long)]
    pub(crate) deletable: bool,
    /// Who pays.
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Where to note what is done, so that an interrupted store goes on (default: below the state directory)
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
    /// Print JSON, one object a file
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walrus quilt …`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuiltCommand {
    /// Lay files out as a quilt: one blob, to be stored like any other
    Create(QuiltCreateArgs),
    /// List the files of a quilt
    Ls(QuiltLsArgs),
    /// Write a file of a quilt to standard output
    Cat(QuiltCatArgs),
}

/// `walrus quilt create`.
#[derive(Debug, Args)]
pub(crate) struct QuiltCreateArgs {
    /// Number of shards; the public networks have 1000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) shards: u16,
    /// Where to write the quilt; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// A tag of a file, as IDENTIFIER:KEY=VALUE; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Files, each as PATH (its identifier is the file's name) or IDENTIFIER=PATH
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a quilt is.
#[derive(Debug, Args)]
pub(crate) struct QuiltPlace {
    /// A blob id (or, for `cat`, a quilt patch id); with --file, the quilt as a file instead
    #[arg(allow_hyphen_values = true)]
    pub(crate) quilt: String,
    /// QUILT is the path of a file (`-` for standard input), not an id
    #[arg(long)]
    pub(crate) file: bool,
    /// With --file: number of shards it was made for
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) shards: u16,
}

/// `walrus quilt ls`.
#[derive(Debug, Args)]
pub(crate) struct QuiltLsArgs {
    /// Where it is.
    #[command(flatten)]
    pub(crate) place: QuiltPlace,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walrus quilt cat`.
#[derive(Debug, Args)]
pub(crate) struct QuiltCatArgs {
    /// Where it is.
    #[command(flatten)]
    pub(crate) place: QuiltPlace,
    /// The file's identifier; not needed after a patch id
    pub(crate) identifier: Option<String>,
    /// Where to write; standard output by default
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) out: PathBuf,
}
