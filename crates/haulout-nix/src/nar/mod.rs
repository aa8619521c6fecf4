//! NAR, Nix's archive format: one canonical byte string for every file tree.
//!
//! ```text
//! nar  = str("nix-archive-1") node
//! node = str("(") str("type") body str(")")
//! body = str("regular") [str("executable") str("")] str("contents") str(bytes)
//!      | str("symlink") str("target") str(target)
//!      | str("directory") {str("entry") str("(") str("name") str(n) str("node") node str(")")}
//! ```
//! where `str(s)` is the length as a little-endian `u64`, the bytes, and zeros up to a multiple of
//! eight. Entries are in strictly ascending order of their names' bytes.
//!
//! Three ways out of the file system and one way in: [`dump`] writes a whole tree, [`Layout`]
//! reads any range of its NAR, [`hash_path`] computes the NarHash; [`Decoder`] checks a NAR while
//! it arrives and tells a [`Visitor`] what is in it, which [`restore`] uses to unpack.

mod decode;
mod digest;
mod dump;
mod format;
mod helper;
mod layout;
mod listing;
mod restore;
mod tree;

pub use decode::{Decoder, NarError, NarErrorKind, Visitor};
pub use digest::{NarDigest, NarHasher, check, decode, hash_path, hash_reader};
pub use dump::dump;
pub use layout::{Cursor, Layout};
pub use listing::Listing;
pub use restore::restore;

/// Longest file name that Nix unpacks, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// Longest symlink target that Nix unpacks, in bytes.
pub const TARGET_LEN_MAX: usize = 4095;

/// How deep a tree may be: the root is at depth 0, and nothing may be at this depth or below.
/// Nix has this limit since 2026; what is deeper could be sent but not unpacked.
pub const DEPTH_MAX: usize = 64;
