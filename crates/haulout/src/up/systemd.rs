//! What the agent has to do with systemd: a port handed over by it, and notes on how the agent is.
//!
//! Without systemd (no `LISTEN_FDS`, no `NOTIFY_SOCKET`) all of this does nothing.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::client::Client;
use crate::error::{Context, Failure, Outcome};

/// The watchdog's question is a line of text.
const ANSWER_BYTES_MAX: usize = 4096;

/// The listening TCP socket that systemd opened for this process, if it opened one
/// (`sd_listen_fds(3)`). It stays open while the agent restarts, so Nix is never refused.
///
/// # Errors
/// When something else than one TCP socket was handed over, or when other machines can reach it
/// without `allow_remote`.
pub(super) fn inherited_listener(allow_remote: bool) -> Outcome<Option<TcpListener>> {
    let mut handed_over = listenfd::ListenFd::from_env();
    if handed_over.len() == 0 {
        return Ok(None);
    }
    let unusable = || "the socket that systemd handed over is not a TCP listener".to_owned();
    let hint = "the socket unit needs one ListenStream=ADDR:PORT, for example 127.0.0.1:5299";
    if handed_over.len() > 1 {
        let count = handed_over.len();
        return Err(
            Failure::new(format!("systemd handed over {count} sockets, not one")).hint(hint)
        );
    }
    let listener = handed_over
        .take_tcp_listener(0)
        .map_err(|error| Failure::new(unusable()).because(error).hint(hint))?
        .ok_or_else(|| Failure::new(unusable()).hint(hint))?;
    let address = listener.local_addr().context(unusable)?;
    if !address.ip().is_loopback() && !allow_remote {
        return Err(Failure::new(format!(
            "systemd handed over {address}, which other machines can reach"
        ))
        .hint("use a loopback address in the socket unit, or set `allow_remote` in [http]"));
    }
    Ok(Some(listener))
}

/// Tells systemd that everything runs.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that the settings are being read again.
pub(super) fn reloading() {
    // Before systemd 253 there is no such thing as a monotonic time in this note; both are understood.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Tells systemd that the agent is about to end.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The note systemd waits for while `WatchdogSec=` is set: it is sent as long as the port for Nix
/// answers, which takes the HTTP thread, and the main loop that asks it.
pub(super) struct Watchdog {
    every: Option<Duration>,
    port: SocketAddr,
}

impl Watchdog {
    /// As the environment says (`WATCHDOG_USEC`).
    pub(super) fn new(port: SocketAddr) -> Self {
        // Half of the time, as sd_watchdog_enabled(3) recommends.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { every: every.filter(|every| !every.is_zero()), port }
    }

    /// Waits, asks, and tells; never ends. Without a watchdog it waits for ever.
    pub(super) async fn run(self) {
        let Some(every) = self.every else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            match tokio::time::timeout(every / 2, self.port_answers()).await {
                Ok(Ok(())) => notify(&[NotifyState::Watchdog]),
                Ok(Err(failure)) => tracing::error!("the port for Nix: {}", failure.report()),
                Err(_) => tracing::error!("the port for Nix has not answered for {:?}", every / 2),
            }
        }
    }

    async fn port_answers(&self) -> Outcome<()> {
        let mut client = Client::connect(reachable(self.port)).await?;
        client.get("/nix-cache-info", ANSWER_BYTES_MAX).await.map(|_| ())
    }
}

/// Where this machine itself reaches a listener on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
        }
        other => other,
    }
}
