//! A client of Walrus storage nodes.

pub mod committee;
