//! The HTTP substituter on localhost and the agent's control interface.
//!
//! [`Substituter`] is what the gateway asks of the rest of the agent, [`api`] what the control
//! interface answers, [`bind`] opens the port (do that first), [`serve`] runs it, and
//! [`LateSubstituter`] answers "no" until the rest of the agent is ready.
//!
//! hyper's HTTP/1 server is used directly: there are few routes, all told apart by their shape, and
//! a router and middleware stack would add more work per request than the look-up itself.

pub mod api;
mod blobs;
mod body;
mod connection;
mod control;
mod counters;
mod door;
mod guests;
mod handler;
mod hosts;
mod listen;
mod metrics;
mod page;
mod range;
mod route;
mod server;
mod substituter;
mod units;

pub use blobs::{BlobBody, BlobError, BlobErrorKind, BlobStream};
pub use door::{Door, LOGINS_MAX, Logins, Network, Refused, Uploads};
pub use listen::{BACKLOG, ListenError, bind};
pub use server::{CONNECTIONS_MAX, GatewayConfig, LocalRule, ServeError, serve};
pub use substituter::{Client, Cut, LateSubstituter, NarBody, Substituter};
pub use units::Bytes;
