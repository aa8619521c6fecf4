//! Requests to the devnet's storage nodes: whatever path and query are, they are a route or an
//! error with a text that is not longer than they are, and what is allowed is said with 405.

#![no_main]

// By path: the crate has a whole full node in it, which would be built for this one file.
#[allow(dead_code, unused)]
#[path = "../../crates/haulout-devnet/src/storage/route.rs"]
mod route;

use route::{RouteError, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match parse(method, path, query) {
        Ok(_) => {
            // HEAD is GET without a body, and what one method allows the other knows.
            if method == "GET" {
                assert!(parse("HEAD", path, query).is_ok());
            }
        }
        Err(RouteError::Bad(why)) => assert!(why.len() <= 3 * target.len() + 200),
        Err(RouteError::Method(allowed)) => assert!(!allowed.split(',').any(|a| a == method)),
        Err(RouteError::NotFound) => {}
    }
});
