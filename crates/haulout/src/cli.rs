//! The command line: what can be said to `haulout`.

use std::path::PathBuf;

use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use crate::devnet::DevnetCommand;
pub(crate) use crate::walrus::WalrusArgs;

/// A peer-to-peer cache for Nix on the local network.
#[derive(Debug, Parser)]
#[command(name = "haulout", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent: find peers, serve this machine's store, answer the local Nix
    Up(UpArgs),
    /// Show in a minute, on generated stores, what the agent does
    Demo(DemoArgs),
    /// Say what the running agent does
    Status(ControlArgs),
    /// List the peers the running agent sees
    Peers(ControlArgs),
    /// Watch what the running agent does, once a second
    Top(ControlArgs),
    /// Look for the usual troubles and say what to do about them
    Doctor(ControlArgs),
    /// Say where a store path would come from, and why
    Why {
        /// A store path, its base name or its 32-character hash part
        path: String,
        /// How to reach the agent.
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Run a Walrus network on this machine, to try things on and to break
    #[command(subcommand)]
    Devnet(DevnetCommand),
    /// Work with NARs, Nix's archive format
    #[command(subcommand)]
    Nar(NarCommand),
    /// Keep a Nix cache on Walrus, registered on Sui
    #[command(subcommand)]
    Archive(crate::archive::ArchiveCommand),
    /// Check that store paths on disk still have the contents the database says
    Verify(VerifyArgs),
    /// Write store paths as a binary cache that any Nix can read: a directory or an S3 bucket
    Push(PushArgs),
    /// Read and store blobs on Walrus, and encode them without a network
    Walrus(WalrusArgs),
    /// Measure what this machine makes of it, beside the goals
    Bench(BenchArgs),
    /// Install the agent as a systemd service (not on NixOS, which has a module)
    Install(InstallArgs),
    /// Remove what `install` installed, and leave nix.conf as it was
    Uninstall(UninstallArgs),
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Directory to write them to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Settings that may be given on the command line of `up`.
#[derive(Debug, Args, Default)]
pub(crate) struct UpArgs {
    /// Settings file (TOML). Default: /etc/haulout/haulout.toml where it exists
    #[arg(long, value_name = "FILE", env = "HAULOUT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Root of a chroot store, as in Nix's `local?root=DIR`
    #[arg(long, value_name = "DIR")]
    pub(crate) store_root: Option<PathBuf>,
    /// Where to keep the identity of this machine
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the local Nix asks, e.g. 127.0.0.1:5299
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
    /// Any other setting, e.g. `--set mesh.mdns=false`; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Check the settings, print them as TOML and exit
    #[arg(long)]
    pub(crate) check: bool,
}

/// How a command reaches the running agent.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Address of the agent
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "HAULOUT_HTTP_LISTEN",
        default_value = "127.0.0.1:5299"
    )]
    pub(crate) agent: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `haulout install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Where the local Nix will ask
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5299")]
    pub(crate) listen: String,
    /// Put everything below this directory, for packages and images
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Do not start it
    #[arg(long)]
    pub(crate) no_start: bool,
}

/// `haulout uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// The directory given to `install`
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
}

/// The acts of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    /// Three agents hand a closure to each other
    Mesh,
    /// Three agents read blobs from a Walrus network on this machine, whose nodes die
    Walrus,
    /// Three agents restore a closure from an archive, with proofs
    Archive,
}

/// `haulout demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Run one act only; by default all
    #[arg(long, value_enum)]
    pub(crate) act: Option<Act>,
    /// Leave the agents running at the end, until Ctrl-C
    #[arg(long)]
    pub(crate) stay: bool,
    /// Seed of the generated closure
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// `haulout nar …`.
#[derive(Debug, Subcommand)]
pub(crate) enum NarCommand {
    /// Write a file, directory or symlink as a NAR to standard output
    Dump {
        /// What to archive
        path: PathBuf,
        /// Write only bytes A to B (B excluded), as a peer would ask for them
        #[arg(long, value_name = "A-B")]
        range: Option<String>,
    },
    /// List what is inside a NAR file, or inside the NAR a path would become
    Ls {
        /// A NAR file (`-` for standard input), or a file or directory to look at
        path: PathBuf,
        /// Print the listing as Nix's `.ls` JSON
        #[arg(long)]
        json: bool,
    },
}

/// `haulout verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Store paths; with none, every path of the store
    pub(crate) paths: Vec<String>,
    /// Root of a chroot store, as in Nix's `local?root=DIR`
    #[arg(long, value_name = "DIR")]
    pub(crate) store_root: Option<PathBuf>,
    /// Also demand a signature by one of these keys (NAME:BASE64); may be repeated
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// Print JSON, one object a path
    #[arg(long)]
    pub(crate) json: bool,
}

/// `haulout push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Store paths, or links to some such as ./result
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    /// Where to: file:///DIR or s3://BUCKET?endpoint=…&region=…&profile=…
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// zstd (default), xz or none; a level may follow, as in zstd:9
    #[arg(long, value_name = "METHOD")]
    pub(crate) compression: Option<String>,
    /// Also sign with this secret key (a file as of nix-store --generate-binary-cache-key); may be
    /// repeated
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) sign: Vec<PathBuf>,
    /// Push only these paths, not what they refer to
    #[arg(long)]
    pub(crate) no_closure: bool,
    /// Paths compressed at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64).map(usize::from))]
    pub(crate) jobs: Option<usize>,
    /// Root of a chroot store, as in Nix's `local?root=DIR`
    #[arg(long, value_name = "DIR")]
    pub(crate) store_root: Option<PathBuf>,
    /// Print nothing about single paths that went well
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Print JSON, one object a path
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Files as NARs, against `nix-store --dump`
    NarDump,
    /// Any part of a NAR, straight from the files
    NarRead,
    /// Who has a path, among 1,000 peers with 50,000 paths each
    Lookup,
    /// narinfos over loopback HTTP, against nginx
    Narinfo,
    /// Paths in an archive's index
    Archive,
    /// Proofs of archives, as checked by an agent
    Proofs,
    /// A blob on 1,000 shards of 20 storage nodes: stored, read, read with nodes down
    Walrus,
}

/// `haulout bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure; with none, everything
    #[arg(value_enum)]
    pub(crate) names: Vec<Bench>,
    /// List what can be measured
    #[arg(long)]
    pub(crate) list: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the table as Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}
