//! Whole-system tests: real Nix in real network namespaces.
//!
//! The library builds the stage, the tests in `tests/` play on it:
//!
//! * [`Lab`]: a LAN of network namespaces on one bridge, multicast included; each
//!   [`Host`] has an address, a name of its own, a link that can be shaped or cut;
//! * [`Process`]: a program running on a host, logged, measured, killed when dropped;
//! * [`Agent`]: `haulout up` on a host; [`NixClient`]: real Nix with a fresh store on a
//!   host; [`StaticCache`]: a closure as an ordinary binary cache, served by nginx;
//! * [`http`]: a client that sees exactly what an agent answered; [`Wiretap`]: what an
//!   agent answered to Nix; [`Wan`]: a slow line to what is outside;
//! * [`Devnet`]: Walrus storage nodes and a Sui full node on a host;
//! * [`Scene`]: a lab with a closure, machines that hold it and machines that want it;
//! * [`Bus`]: a D-Bus on a host, with programs that have properties;
//! * [`Avahi`], [`Resolved`]: other multicast DNS programs on a host;
//! * `evil-peer`: a program that takes part in the mesh and lies.
//!
//! Namespaces need root and some programs. Where one is missing, the constructors
//! return `None` after saying so loudly (see [`skip`]); with `HAULOUT_NO_SKIPS=1` that
//! is a failure. Everything else that goes wrong panics: here a panic is the report.

mod agent;
mod browser;
mod dbus;
mod devnet;
pub mod http;
mod lab;
mod nginx;
mod nix;
mod process;
mod responders;
mod scene;
mod scratch;
pub mod skip;
mod wan;
pub mod wiretap;

pub use agent::{Agent, AgentSpec, haulout};
pub use browser::Browser;
pub use dbus::{Bus, Properties, Value};
pub use devnet::Devnet;
pub use lab::{Host, Lab};
pub use nginx::{CacheCompression, StaticCache};
pub use nix::{Nix, NixClient, Outcome, substituter};
pub use process::{Process, Usage};
pub use responders::{Avahi, Resolved};
pub use scene::{Closure, FIND_LIMIT, KEY_NAME, Machine, Scene};
pub use scratch::Scratch;
pub use wan::Wan;
pub use wiretap::Wiretap;

use std::time::{Duration, Instant};

/// Asks `probe` every 10 ms until it says yes; false when `limit` has passed.
pub fn wait_until(limit: Duration, mut probe: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if probe() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes the files of a binary cache, as a new one would be.
///
/// # Panics
/// When they cannot be removed.
pub fn empty_cache(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir.join("nar"))
        .expect("cache")
        .chain(std::fs::read_dir(dir).expect("cache"))
    {
        let path = entry.expect("cache").path();
        if path.is_file() && !path.ends_with("nix-cache-info") {
            std::fs::remove_file(path).expect("cache");
        }
    }
}

/// The value at quantile `q` (0 to 1) of `samples`, which get sorted.
///
/// # Panics
/// When there are no samples.
pub fn quantile(samples: &mut [Duration], q: f64) -> Duration {
    samples.sort_unstable();
    let last = samples.len().checked_sub(1).expect("no samples");
    samples[((last as f64) * q).round() as usize]
}
