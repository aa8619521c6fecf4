//! The Nix store database, read live and read-only.
