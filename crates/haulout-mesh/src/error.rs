//! Errors of the handle's methods.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why the mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP socket could not be opened.
    #[error(
        "cannot listen on UDP {addr}\n  hint: another agent may be running; choose another port or stop it"
    )]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No address to listen on was configured.
    #[error("no listen address is configured")]
    NoListenAddress,
    /// More listen addresses than the mesh is willing to serve.
    #[error("{given} listen addresses are configured, at most {max} are supported")]
    TooManyListenAddresses {
        /// How many there were.
        given: usize,
        /// How many there may be.
        max: usize,
    },
    /// The identity key was refused by the TLS library.
    #[error("the identity key cannot be used for TLS")]
    Identity(#[source] rustls::Error),
    /// The endpoint thread or its runtime could not be started.
    #[error("cannot start the mesh thread")]
    Thread(#[source] io::Error),
}

/// Why a request to one peer brought no answer. All of them mean: ask somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection to this peer exists and none could be made in time.
    #[error("peer is not connected")]
    NotConnected,
    /// The peer answered "no": it has not got it, or not for us. Nobody's fault.
    #[error("peer does not have it")]
    No,
    /// The peer is at one of its limits.
    #[error("peer is busy")]
    Busy,
    /// The peer does not know this kind of request.
    #[error("peer does not support this request")]
    Unsupported,
    /// Nothing came back within the deadline.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The connection or stream broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer broke the protocol; blame it.
    #[error("peer broke the protocol: {0}")]
    Protocol(String),
    /// The question itself makes no sense (for example a range outside the NAR).
    #[error("bad question: {0}")]
    BadQuestion(&'static str),
    /// The mesh has been shut down.
    #[error("the mesh is shut down")]
    ShutDown,
}

/// Why a NAR stream ended before its range did. The bytes handed out before stay good; continue elsewhere from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// No byte arrived for this long.
    #[error("no progress for {0:?}")]
    Stalled(Duration),
    /// The connection or stream broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer broke the protocol; blame it.
    #[error("peer broke the protocol: {0}")]
    Protocol(String),
}
