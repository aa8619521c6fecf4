//! What the agent itself says, and the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haulout_gateway::api::{AgentState, AgentStatus, PeersReport};

use super::Finding;

/// An agent that was asked nothing for so long is probably not asked at all, in seconds.
const SILENT_AFTER: u64 = 3600;
/// The first day of 2026: no agent was built before.
const NOT_BEFORE: u64 = 1_767_225_600;

/// The agent's own state, its store and its cache.
pub(super) fn running(status: &AgentStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    findings.push(match status.state {
        AgentState::Serving if status.version == version => {
            Finding::good("agent", format!("the agent runs, version {version}"))
        }
        AgentState::Serving => Finding::warning(
            "agent",
            format!("the agent is version {}, this command {version}", status.version),
            "restart the agent after an update",
        ),
        state => Finding::warning(
            "agent",
            format!("the agent is {}", format!("{state:?}").to_lowercase()),
            "look again in a few seconds; its log says what it waits for",
        ),
    });
    findings.push(match status.store.paths_total {
        Some(0) => Finding::warning(
            "store",
            "the store has no paths",
            "is it the right one? `store.root` in the settings names another",
        ),
        Some(paths) => Finding::good("store", format!("the store can be read: {paths} paths")),
        None => Finding::bad(
            "store",
            "the store's database cannot be read",
            "/nix/var/nix/db/db.sqlite must be readable for the agent's user",
        ),
    });
    if let (Some(0), Some(paths @ 1..)) = (status.store.paths_shared, status.store.paths_total) {
        findings.push(Finding::warning(
            "sharing",
            format!("none of the {paths} paths may be given to others"),
            "only paths signed by a trusted key are shared; see `keys` in [share] and trusted-public-keys",
        ));
    }
    if let Some(paused) = &status.cache.paused {
        findings.push(Finding::warning(
            "cache",
            format!("nothing is being cached: {paused}"),
            "make room on that disk, or set another `cache.dir`",
        ));
    }
    for warning in &status.warnings {
        findings.push(Finding::warning(
            "agent-warning",
            warning.text.clone(),
            warning.hint.clone().unwrap_or_else(|| "its log may say more".to_owned()),
        ));
    }
    if status.uptime_seconds > SILENT_AFTER && status.counters.http.narinfo_asked == 0 {
        findings.push(Finding::warning(
            "asked",
            "Nix has asked nothing since the agent started",
            "after a change of nix.conf, restart nix-daemon: it reads the file only then",
        ));
    }
    findings
}

/// Who is there.
pub(super) fn peers(status: &AgentStatus, peers: &PeersReport) -> Vec<Finding> {
    if status.mesh_listen.is_empty() {
        return vec![Finding::warning(
            "peers",
            "the mesh is switched off",
            "`mesh.enable = true` in the settings switches it on",
        )];
    }
    if status.silent {
        let here: Vec<String> = status.networks.iter().map(crate::report::network).collect();
        return vec![Finding::warning(
            "network",
            format!(
                "none of the known networks is here, so the agent is silent. Here: {}",
                here.join("; ")
            ),
            "to take part here, add this network to `known` in [network]: best as \"gateway MAC\"",
        )];
    }
    let count = |state: &str| peers.peers.iter().filter(|peer| peer.state == state).count();
    let (connected, banned) = (count("connected"), count("banned"));
    let mut findings = vec![match (connected, peers.peers.len()) {
        (0, 0) => Finding::warning(
            "peers",
            "no other machine is seen",
            "if there is one: both firewalls must let UDP ports 5353 and 5299 in, and access points must not keep \
             clients apart; across subnets name it in `mesh.peers`",
        ),
        (0, seen) => Finding::bad(
            "peers",
            format!("{seen} machines are seen, but none can be reached"),
            "their firewall must let the agent's UDP port in (5299 unless set); in a mesh with a secret, compare the secrets",
        ),
        (connected, seen) => {
            Finding::good("peers", format!("{connected} of {seen} machines seen are connected"))
        }
    }];
    if banned > 0 {
        findings.push(Finding::warning(
            "banned",
            format!("{banned} machines gave wrong content and are not asked for a while"),
            "`haulout peers` names them; look at their disks with `haulout verify`",
        ));
    }
    findings
}

/// Proofs of archives and TLS need a clock that is roughly right.
pub(super) fn clock(now: SystemTime) -> Option<Finding> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    (seconds < NOT_BEFORE).then(|| {
        Finding::bad(
            "clock",
            "this machine's clock is years behind",
            "switch time synchronisation on (`timedatectl set-ntp true`)",
        )
    })
}

#[cfg(test)]
mod tests {
    use haulout_gateway::api::PeerReport;

    use super::super::Level;
    use super::*;

    fn serving() -> AgentStatus {
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: AgentState::Serving,
            mesh_listen: vec!["[::]:5299".parse().unwrap()],
            store: haulout_gateway::api::StoreReport {
                paths_total: Some(9),
                paths_shared: Some(4),
                ..Default::default()
            },
            ..AgentStatus::default()
        }
    }

    fn worst(findings: &[Finding]) -> Level {
        findings.iter().map(|finding| finding.level).max().unwrap()
    }

    #[test]
    fn a_good_agent_is_called_good_and_each_trouble_is_named() {
        assert_eq!(worst(&running(&serving())), Level::Good);
        let with = |change: fn(&mut AgentStatus)| {
            let mut status = serving();
            change(&mut status);
            running(&status)
        };
        let found = |findings: &[Finding], check| {
            findings.iter().any(|one| one.check == check && one.hint.is_some())
        };
        assert!(found(&with(|s| s.version = "0.0.1".into()), "agent"));
        assert!(found(&with(|s| s.store.paths_total = None), "store"));
        assert!(found(&with(|s| s.store.paths_shared = Some(0)), "sharing"));
        assert!(found(&with(|s| s.cache.paused = Some("disk full".into())), "cache"));
        assert!(found(&with(|s| s.uptime_seconds = 9999), "asked"));
    }

    #[test]
    fn peers_that_cannot_be_reached_are_worse_than_none() {
        let peer = |state: &str| PeerReport { state: state.into(), ..PeerReport::default() };
        let said = |list: Vec<PeerReport>| worst(&peers(&serving(), &PeersReport { peers: list }));
        assert_eq!(said(vec![]), Level::Warning);
        assert_eq!(said(vec![peer("seen")]), Level::Bad);
        assert_eq!(said(vec![peer("seen"), peer("connected")]), Level::Good);
        assert_eq!(said(vec![peer("banned"), peer("connected")]), Level::Warning);
    }

    #[test]
    fn only_an_old_clock_is_mentioned() {
        assert!(clock(UNIX_EPOCH).is_some());
        assert!(clock(UNIX_EPOCH + Duration::from_secs(NOT_BEFORE)).is_none());
    }
}
