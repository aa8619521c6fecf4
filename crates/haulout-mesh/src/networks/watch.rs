//! Noticing that something changed: the kernel's messages, and the jump of the clock after sleep.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt,
};

use super::boot_time;

/// How often the clock is looked at, and the longest wait for a message of the kernel's.
const TICK: Duration = Duration::from_secs(1);
/// A tick that took this much longer than it should: the machine slept, or everything on it stood still.
const SLEPT: Duration = Duration::from_secs(4);
/// Messages come in bursts; what belongs together is looked at once.
const SETTLE: Duration = Duration::from_millis(200);
/// And looked at anyway this often, where there are no messages or one was missed.
const ANYWAY: Duration = Duration::from_secs(30);
/// The same without messages at all.
const WITHOUT_MESSAGES: Duration = Duration::from_secs(2);
/// Groups of messages (linux/rtnetlink.h): links, and addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Why it is time to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Nothing,
    /// It is time, or something was not complete.
    Again,
    /// The kernel says that something is different.
    Changed,
    Slept,
}

pub(super) struct Watcher {
    socket: Option<OwnedFd>,
    /// When it was looked at last, in time since the machine started.
    looked: Duration,
    ticked: Duration,
}

impl Watcher {
    pub(super) fn new() -> Self {
        let socket = open().inspect_err(|error| {
            tracing::info!(%error, "the kernel's messages about the network cannot be had; looking every {WITHOUT_MESSAGES:?}");
        });
        let now = boot_time();
        Self { socket: socket.ok(), looked: now, ticked: now }
    }

    /// Waits for a tick at most.
    pub(super) fn wait(&mut self, soon: bool) -> Why {
        let changed = match &self.socket {
            Some(socket) => heard(socket),
            None => {
                std::thread::sleep(TICK);
                false
            }
        };
        if changed {
            std::thread::sleep(SETTLE);
            // The rest of the burst; the socket does not wait any more.
            while self
                .socket
                .as_ref()
                .is_some_and(|socket| received(socket, RecvFlags::DONTWAIT) == Some(true))
            {
            }
        }
        self.judge(boot_time(), changed, soon)
    }

    fn judge(&mut self, now: Duration, changed: bool, soon: bool) -> Why {
        let tick = now.saturating_sub(self.ticked);
        self.ticked = now;
        let every = if self.socket.is_some() { ANYWAY } else { WITHOUT_MESSAGES };
        let why = if tick >= TICK + SLEPT {
            Why::Slept
        } else if changed {
            Why::Changed
        } else if soon || now.saturating_sub(self.looked) >= every {
            Why::Again
        } else {
            return Why::Nothing;
        };
        self.looked = now;
        why
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TICK))?;
    Ok(socket)
}

/// Whether a message came within a tick.
fn heard(socket: &OwnedFd) -> bool {
    received(socket, RecvFlags::empty()).unwrap_or_else(|| {
        // Never so fast that a broken socket costs anything.
        std::thread::sleep(TICK);
        true
    })
}

/// One message: yes, no, or the socket is broken. What it says is not read: all is looked at anew anyway.
fn received(socket: &OwnedFd, flags: RecvFlags) -> Option<bool> {
    let mut buffer = [0_u8; 8_192];
    match recv(socket, &mut buffer[..], flags) {
        Ok(_) | Err(rustix::io::Errno::NOBUFS) => Some(true),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Some(false),
        Err(error) => {
            tracing::debug!(%error, "netlink");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_is_sleep_and_a_slow_second_is_not() {
        let at = Duration::from_millis;
        let mut watcher = Watcher { socket: open().ok(), looked: at(0), ticked: at(0) };
        assert_eq!(watcher.judge(at(1_000), false, false), Why::Nothing);
        assert_eq!(
            watcher.judge(at(5_500), false, false),
            Why::Nothing,
            "a machine that is merely busy"
        );
        assert_eq!(watcher.judge(at(5_600), true, false), Why::Changed);
        assert_eq!(watcher.judge(at(3_605_600), false, false), Why::Slept);
        assert_eq!(watcher.judge(at(3_606_600), false, false), Why::Nothing);
        let mut later =
            (1..=40).map(|second| watcher.judge(at(3_606_600 + second * 1_000), false, false));
        assert!(later.any(|why| why == Why::Again), "now and then it is looked anyway");
    }

    #[test]
    fn the_kernel_is_listened_to() {
        let socket = open().unwrap();
        assert_eq!(received(&socket, RecvFlags::DONTWAIT), Some(false));
    }
}
