//! The haulout agent and command line.
#![allow(dead_code)]
mod cli;
mod client;
mod config;
mod error;
mod logging;
fn main() {}
