//! Reading `nix.conf`.
