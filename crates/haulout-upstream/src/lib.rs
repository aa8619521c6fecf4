//! Binary caches outside the mesh: HTTP(S), S3 and directories, as sources and as targets.
//!
//! [`Upstreams`] answers two questions within a budget: *what do you say about this path*
//! ([`Upstreams::narinfo`]), and *give me these bytes of that file* ([`Upstreams::open`]);
//! [`decompress()`] makes a NAR of the file. Nothing here is verified beyond its form and what the
//! [`Judge`] says about signatures: whoever delivers a NAR checks its hash.
//!
//! Rules that hold whatever an upstream does:
//!
//! * It costs an asker its budget at most, and one that was slow, down, rate-limiting, denying or
//!   hidden behind a login page is then left alone for a while ([`health`]), so that the next
//!   askers do not wait at all.
//! * A narinfo names a file of its own cache, never another host or a path outside ([`location`]).
//!   Redirects leave the host only from https to https, to public addresses, and without the
//!   password.
//! * Every body is bounded: narinfos by [`haulout_nix::narinfo::TEXT_BYTES_MAX`], files by what
//!   the signed NarSize allows, decompressed bytes by NarSize itself; silence and dripping end
//!   a transfer.

pub mod address;
pub mod cache_info;
pub mod decompress;
pub mod error;
pub mod health;
mod http;
pub mod location;
mod memory;
mod store;
mod stream;
pub mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upstream;
mod upstreams;

pub use address::{Address, AddressError, CacheUrl};
pub use decompress::{ByteStream, decompress};
pub use error::Trouble;
pub use http::{Proxies, system_tls, tls_with};
pub use location::FileLocation;
pub use stream::FileStream;
pub use upstream::QUESTIONS_MAX;
pub use upstreams::{
    Answer, Found, Judge, Kind, Options, UPSTREAMS_MAX, UpstreamId, UpstreamStatus, Upstreams,
};
