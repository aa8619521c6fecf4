//! Nix store paths, narinfo, NAR, signatures and the store database. No network.
