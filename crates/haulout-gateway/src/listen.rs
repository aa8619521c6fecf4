//! Opening the port.

use std::{io, net::SocketAddr, net::TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds for us until they are accepted. Nix opens up to 25 at once and
/// several builds may start together; one that does not fit waits a second for its SYN to be
/// repeated.
pub const BACKLOG: i32 = 1024;

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address other machines can reach was given without asking for that.
    #[error(
        "{addr} can be reached by other machines\nhint: use 127.0.0.1 or [::1], or allow remote clients explicitly"
    )]
    NotLoopback {
        /// The address.
        addr: SocketAddr,
    },
    /// Somebody listens there already.
    #[error("{addr} is in use\nhint: another agent may be running; choose another port")]
    InUse {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {addr}")]
    Io {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Open `addr` (port 0: any free one) with [`BACKLOG`]. From this moment connections are accepted
/// by the kernel, so do it before anything slow: Nix remembers a refused connection much longer
/// than a 404.
///
/// # Errors
/// When the address is not a loopback one and `allow_remote` is false, and when the system refuses.
pub fn bind(addr: SocketAddr, allow_remote: bool) -> Result<TcpListener, ListenError> {
    if !addr.ip().is_loopback() && !allow_remote {
        return Err(ListenError::NotLoopback { addr });
    }
    open(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { addr, source },
        _ => ListenError::Io { addr, source },
    })
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_only_unless_told() {
        assert!(matches!(
            bind("0.0.0.0:0".parse().unwrap(), false),
            Err(ListenError::NotLoopback { .. })
        ));
        assert!(bind("0.0.0.0:0".parse().unwrap(), true).is_ok());
        let first = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert!(matches!(bind(first.local_addr().unwrap(), false), Err(ListenError::InUse { .. })));
    }
}
