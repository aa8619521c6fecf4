//! What can be said to `haulout archive`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::wallet::WalletArgs;

/// `haulout archive …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Make a new archive
    Init(InitArgs),
    /// Put store paths of this machine, with all they need, into an archive
    Publish(PublishArgs),
    /// Put paths of a binary cache into an archive, with their signatures
    Import(ImportArgs),
    /// List the paths of an archive
    Ls(LsArgs),
    /// Write the NAR of a path to standard output, checked
    Cat(CatArgs),
    /// Check an archive from its state down, and say what is missing or ends when
    Verify(VerifyArchiveArgs),
    /// Compare two archives, or two states of one
    Diff(DiffArgs),
    /// Say how an archive stands
    Status(ReadArgs),
    /// Make the newest levels of an archive one, or leave paths out
    Merge(MergeArgs),
    /// Pay for the storage of everything in an archive
    Fund(FundArgs),
    /// Say that an archive is up to date although nothing was published
    Beat(WriteArgs),
    /// Say who may publish to an archive of yours
    #[command(subcommand)]
    Publisher(PublisherCommand),
    /// End an archive's changes for good; this cannot be undone
    Freeze(OwnerArgs),
    /// Ask a network's full nodes what a proof can start from, and write a network file that says so
    Anchor(AnchorArgs),
    /// Work out what an archive will cost
    Cost(CostArgs),
}

/// `archive publisher …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PublisherCommand {
    /// Let another account publish, too
    Add {
        /// The account, 0x…
        account: String,
        /// Where to write the archive file for it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Whose archive.
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Make a publisher's cap worthless
    Revoke {
        /// The cap, 0x…
        cap: String,
        /// Whose archive.
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Replace this file's publisher's cap by a new one, for this wallet
    Rotate {
        /// Whose archive.
        #[command(flatten)]
        owner: OwnerArgs,
    },
}

/// An archive and the wallet of its owner.
#[derive(Debug, Args)]
pub(crate) struct OwnerArgs {
    /// Which archive.
    #[command(flatten)]
    pub(crate) place: Where,
    /// Who pays.
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

/// Which archive.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The archive: the file that `init` wrote, or a directory for rehearsals
    #[arg(long, value_name = "FILE|DIR", env = "HAULOUT_ARCHIVE")]
    pub(crate) archive: PathBuf,
}

/// An archive that is read, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Which archive.
    #[command(flatten)]
    pub(crate) place: Where,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// An archive that is written to, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Which archive.
    #[command(flatten)]
    pub(crate) place: Where,
    /// Who pays.
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// How things are stored.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Store everything for so many epochs, the current one included (two weeks each on mainnet)
    #[arg(long, default_value_t = 26, value_parser = clap::value_parser!(u32).range(1..=53))]
    pub(crate) epochs: u32,
    /// zstd level of the packs
    #[arg(long, default_value_t = haulout_archive::pack::LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: i32,
    /// Also sign every path with this key (a Nix secret key file)
    #[arg(long, value_name = "FILE")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Where packs are made and an interrupted publication is remembered
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
}

/// `archive init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// What to make: a directory (a rehearsal, nothing is paid), or, with --network, the file that will name the archive
    pub(crate) target: PathBuf,
    /// On which network: mainnet, testnet or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) network: Option<String>,
    /// Use this published contract instead of publishing it
    #[arg(long, value_name = "ID", requires = "network")]
    pub(crate) package: Option<String>,
    /// What to call it
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// The store directory of its paths
    #[arg(long, default_value = "/nix/store")]
    pub(crate) store_dir: String,
    /// Shards of the network that a rehearsal is for
    #[arg(long, default_value_t = 1000, conflicts_with = "network")]
    pub(crate) shards: u16,
    /// Who pays.
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `archive publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Store paths
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    /// Only these paths, not what they need
    #[arg(long)]
    pub(crate) no_closure: bool,
    /// Root of a chroot store, as in Nix's `local?root=DIR`
    #[arg(long, value_name = "DIR")]
    pub(crate) store_root: Option<PathBuf>,
    /// How.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Into which archive.
    #[command(flatten)]
    pub(crate) to: WriteArgs,
}

/// `archive import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The binary cache: http://, https://, s3:// or file://
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// Paths to take, with all they need; with none, everything in a file:// cache
    pub(crate) paths: Vec<String>,
    /// How.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Into which archive.
    #[command(flatten)]
    pub(crate) to: WriteArgs,
}

/// `archive ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Which archive.
    #[command(flatten)]
    pub(crate) place: Where,
    /// Print JSON, one object a path
    #[arg(long)]
    pub(crate) json: bool,
}

/// `archive cat`.
#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// A store path, its base name or its 32-character hash part
    pub(crate) path: String,
    /// Print its narinfo instead
    #[arg(long)]
    pub(crate) narinfo: bool,
    /// Which archive.
    #[command(flatten)]
    pub(crate) place: Where,
}

/// `archive verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArchiveArgs {
    /// Read and hash every NAR too
    #[arg(long)]
    pub(crate) deep: bool,
    /// Which archive.
    #[command(flatten)]
    pub(crate) of: ReadArgs,
}

/// `archive diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The first archive, a file or directory
    pub(crate) from: PathBuf,
    /// The second one
    pub(crate) to: PathBuf,
    /// Print JSON, one object a difference
    #[arg(long)]
    pub(crate) json: bool,
}

/// `archive merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// How many of the newest levels; all when not given
    #[arg(long)]
    pub(crate) levels: Option<usize>,
    /// Leave this path out; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) drop: Vec<String>,
    /// Store the new index for so many epochs, the current one included; when not given, as long
    /// as what it replaces
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=53))]
    pub(crate) epochs: Option<u32>,
    /// Into which archive.
    #[command(flatten)]
    pub(crate) to: WriteArgs,
}

/// `archive fund`.
#[derive(Debug, Args)]
pub(crate) struct FundArgs {
    /// For how many epochs from now, the current one included
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=53))]
    pub(crate) epochs: u32,
    /// Into which archive.
    #[command(flatten)]
    pub(crate) to: WriteArgs,
}

/// `archive anchor`.
#[derive(Debug, Args)]
pub(crate) struct AnchorArgs {
    /// Of which network: mainnet, testnet or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) network: String,
}

/// `archive cost`.
#[derive(Debug, Args)]
pub(crate) struct CostArgs {
    /// New paths a month
    #[arg(long, default_value_t = 250_000)]
    pub(crate) paths: u64,
    /// Bytes of a compressed NAR, on average
    #[arg(long, default_value_t = 2_300_000)]
    pub(crate) nar_bytes: u64,
    /// Updates a month
    #[arg(long, default_value_t = 730)]
    pub(crate) updates: u64,
    /// How often each byte is downloaded in a month (for the CDN)
    #[arg(long, default_value_t = 10.0)]
    pub(crate) downloads: f64,
    /// USD of one SUI
    #[arg(long, default_value_t = 1.0)]
    pub(crate) usd_per_sui: f64,
    /// USD of one WAL
    #[arg(long, default_value_t = 0.11)]
    pub(crate) usd_per_wal: f64,
    /// Price of a unit of computation, in MIST
    #[arg(long, default_value_t = 750)]
    pub(crate) gas_price: u64,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
