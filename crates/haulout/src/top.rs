//! `haulout top`: what the agent does, once a second, until `q` or Ctrl-C.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use haulout_gateway::api::{AgentStatus, PeersReport};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::cli::ControlArgs;
use crate::control::{ask, block_on, resolve};
use crate::error::Outcome;
use crate::report::{self, Table};

/// How often the view is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// Width of a progress bar, in characters.
const BAR: usize = 20;

/// One look at the agent.
struct Look {
    at: Instant,
    status: AgentStatus,
    peers: PeersReport,
}

/// `haulout top`. Without a terminal it prints one view; with `--json` the status, once a second.
pub(crate) fn run(args: &ControlArgs) -> Outcome<ExitCode> {
    let mut before = look(args)?;
    if args.json {
        println!("{}", serde_json::json!({ "status": before.status, "peers": before.peers }));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(screen) = Screen::open() else {
        print!("{}", view(&before, &before, usize::MAX));
        return Ok(ExitCode::SUCCESS);
    };
    let keys = keys();
    loop {
        let now = look(args)?;
        screen.draw(&view(&before, &now, screen.rows()));
        before = now;
        match keys.recv_timeout(EVERY) {
            Ok(b'q' | 3 | 27) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            _ => {}
        }
    }
    drop(screen);
    Ok(ExitCode::SUCCESS)
}

fn look(args: &ControlArgs) -> Outcome<Look> {
    let address = resolve(&args.agent)?;
    block_on(async {
        let status = ask(address, "status").await?.0;
        Ok(Look { at: Instant::now(), status, peers: ask(address, "peers").await?.0 })
    })
}

/// The keys pressed, read on a thread of their own.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel();
    std::thread::spawn(move || {
        // Keys come one by one, and must not wait for more.
        let mut key = [0; 1];
        while let Ok(1) = std::io::stdin().read(&mut key) {
            let [byte] = key;
            if sender.send(byte).is_err() {
                return;
            }
        }
        // Without a keyboard only Ctrl-C ends it.
        std::thread::park();
    });
    keys
}

/// The terminal while the view is up; as it was when dropped.
struct Screen {
    saved: Option<Termios>,
}

impl Screen {
    fn open() -> Option<Self> {
        if !std::io::stdout().is_terminal() {
            return None;
        }
        let saved = tcgetattr(std::io::stdin()).ok();
        if let Some(saved) = &saved {
            let mut keys = saved.clone();
            // Every key at once and unseen. Ctrl-C comes as a key too, so that the screen can be put right.
            keys.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &keys);
        }
        // The other screen, without a cursor.
        print!("\x1b[?1049h\x1b[?25l");
        Some(Self { saved })
    }

    fn rows(&self) -> usize {
        tcgetwinsize(std::io::stdout()).map_or(24, |size| usize::from(size.ws_row).max(4))
    }

    fn draw(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Home; each line cleared to its end; then everything below.
        let text = text.replace('\n', "\x1b[K\r\n");
        let _ = write!(out, "\x1b[H{text}\x1b[J");
        let _ = out.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print!("\x1b[?25h\x1b[?1049l");
        let _ = std::io::stdout().flush();
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// The view: rates are over the time between two looks.
fn view(before: &Look, now: &Look, rows: usize) -> String {
    let time = now.at.duration_since(before.at);
    let rate = |get: fn(&AgentStatus) -> u64| {
        report::rate(get(&now.status).saturating_sub(get(&before.status)), time)
    };
    let status = &now.status;
    let mut text = format!(
        "haulout {}  {}  up {}    saved {} today, {} in total    q ends\n",
        status.version,
        format!("{:?}", status.state).to_lowercase(),
        report::duration(Duration::from_secs(status.uptime_seconds)),
        report::bytes(status.saved.outside_avoided().0),
        report::bytes(status.saved.outside_avoided().1),
    );
    text.push_str(&format!(
        "to Nix {}    from peers {}    to peers {}    narinfos {}/s\n",
        rate(|s| s.counters.http.bytes_to_nix),
        rate(|s| s.counters.bytes_from_peers),
        rate(|s| s.counters.bytes_to_peers),
        narinfo_rate(before, now, time),
    ));
    for warning in &status.warnings {
        text.push_str(&format!("warning: {}\n", warning.text));
    }
    text.push('\n');
    text.push_str(&peer_table(before, now, time));
    text.push('\n');
    for one in &status.transfers {
        let share = one.done_bytes.min(one.total_bytes) as f64 / one.total_bytes.max(1) as f64;
        let full = (share * BAR as f64) as usize;
        text.push_str(&format!(
            "  {} [{}{}] {:>9}  {}  {}\n",
            if one.incoming { "<-" } else { "->" },
            "#".repeat(full),
            ".".repeat(BAR - full),
            report::bytes(one.total_bytes),
            one.peers.join(","),
            one.path.rsplit('/').next().unwrap_or_default(),
        ));
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.truncate(rows.saturating_sub(1));
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn narinfo_rate(before: &Look, now: &Look, time: Duration) -> u64 {
    let asked = |look: &Look| look.status.counters.http.narinfo_asked;
    let more = asked(now).saturating_sub(asked(before)) as f64;
    if time.is_zero() { 0 } else { (more / time.as_secs_f64()).round() as u64 }
}

fn peer_table(before: &Look, now: &Look, time: Duration) -> String {
    let mut table = Table::new(
        &["peer", "state", "rtt", "paths", "from it", "to it", "trouble"],
        &[2, 3, 4, 5],
    );
    for peer in &now.peers.peers {
        let old = before.peers.peers.iter().find(|old| old.peer == peer.peer);
        let rate = |bytes: u64, old: Option<u64>| {
            report::rate(bytes.saturating_sub(old.unwrap_or(bytes)), time)
        };
        let faults: Vec<String> =
            peer.faults.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        table.row([
            peer.peer.chars().take(8).collect(),
            peer.state.clone(),
            peer.rtt_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms")),
            peer.holdings_text().unwrap_or_else(|| "?".to_owned()),
            rate(peer.bytes_from, old.map(|old| old.bytes_from)),
            rate(peer.bytes_to, old.map(|old| old.bytes_to)),
            faults.join(", "),
        ]);
    }
    if table.is_empty() { "  no peers\n".to_owned() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use haulout_gateway::api::{PeerReport, TransferReport};

    use super::*;

    fn look_with(bytes: u64, at: Instant) -> Look {
        let mut status = AgentStatus::default();
        status.counters.bytes_from_peers = bytes;
        status.transfers = vec![TransferReport {
            path: "/nix/store/abc-hello".into(),
            incoming: true,
            done_bytes: 50,
            total_bytes: 100,
            ..TransferReport::default()
        }];
        let peer = PeerReport { peer: "ab".repeat(32), bytes_from: bytes, ..PeerReport::default() };
        Look { at, status, peers: PeersReport { peers: vec![peer] } }
    }

    #[test]
    fn rates_are_over_the_time_between_two_looks() {
        let start = Instant::now();
        let text = view(
            &look_with(1_000_000, start),
            &look_with(5_000_000, start + Duration::from_secs(2)),
            100,
        );
        assert!(text.contains("from peers 2.00 MB/s"), "{text}");
        assert!(text.contains("abababab") && text.contains("[##########..........]"), "{text}");
        assert!(text.contains("abc-hello") && !text.contains("/nix/store"), "{text}");
    }

    #[test]
    fn it_fits_the_screen() {
        let look = look_with(1, Instant::now());
        assert_eq!(view(&look, &look, 5).lines().count(), 4);
    }
}
