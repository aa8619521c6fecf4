//! Turns a question from Nix into verified bytes: own store, cache, peers.
