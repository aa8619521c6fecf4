//! NAR, Nix's archive format: one canonical byte string for every file tree.

mod dump;
mod layout;

pub use dump::dump;
pub use layout::Layout;

/// Longest file name that Nix unpacks, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// Longest symlink target that Nix unpacks, in bytes.
pub const TARGET_LEN_MAX: usize = 4095;

/// How deep a tree may be: the root is at depth 0, and nothing may be at this depth or below.
pub const DEPTH_MAX: usize = 64;
