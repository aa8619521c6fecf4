//! The haulout agent and command line.
fn main() {}
