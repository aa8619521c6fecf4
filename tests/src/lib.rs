//! Whole-system tests: real Nix in real network namespaces.
