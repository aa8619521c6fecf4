//! Nix store paths, narinfo, NAR, signatures and the store database. No network.
//!
//! Everything that comes from outside (a peer, a cache, a file) enters through a parser here and
//! leaves as a type that cannot hold an ill-formed value. Nothing in this crate opens a socket or
//! starts a thread.

pub mod conf;
pub mod content_address;
pub mod db;
pub mod hash;
pub mod keys;
pub mod nar;
pub mod narinfo;
pub mod nix32;
pub mod path_info;
pub mod store_path;

pub use content_address::ContentAddress;
pub use hash::NarHash;
pub use keys::{KeySet, PublicKey, SecretKey, Signature};
pub use narinfo::{Compression, NarInfo};
pub use path_info::PathInfo;
pub use store_path::{HashPart, StoreDir, StorePath, StorePathName};
