//! Generates a signed sample closure as a real chroot store, without Nix.
