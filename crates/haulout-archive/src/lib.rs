//! Nix archives: packs of compressed NARs, the index over them, its Merkle proofs, and the contract
//! that registers them. No I/O, no clock; `docs/archive-format.md` describes the bytes.
#![forbid(unsafe_code)]

pub mod contract;
