//! `/metrics`: the reports as text for Prometheus. The list is documented in `docs/metrics.md`, and a test keeps it true.

use std::fmt::{Display, Write};

use crate::api::{AgentStatus, PeersReport, SourceReport};

/// The content type of the text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub(crate) fn metrics(status: &AgentStatus, peers: &PeersReport) -> String {
    let mut text = Exposition::default();
    agent(&mut text, status);
    nix_side(&mut text, status);
    transfers(&mut text, status);
    peer_side(&mut text, peers);
    sources(&mut text, status);
    outside(&mut text, status);
    slivers(&mut text, status);
    text.0
}

fn outside(text: &mut Exposition, status: &AgentStatus) {
    let site = &status.counters.site;
    text.family(
        "haulout_outside_bytes_total",
        "counter",
        "Bytes fetched from outside, by why it was this machine that fetched them.",
    );
    for (why, bytes) in &site.bytes_fetched_because {
        text.labelled("haulout_outside_bytes_total", &[("why", why)], *bytes);
    }
    text.one(
        "haulout_outside_again_bytes_total",
        "counter",
        "Of them, those of pieces that it had fetched before.",
        site.bytes_fetched_again,
    );
    text.family("haulout_pieces_bytes", "gauge", "Bytes of pieces kept for neighbours.");
    for (place, bytes) in [("memory", site.kept_in_memory), ("disk", site.kept_on_disk)] {
        text.labelled("haulout_pieces_bytes", &[("place", &place)], bytes);
    }
}

fn slivers(text: &mut Exposition, status: &AgentStatus) {
    // An agent without a Walrus network has read nothing.
    let walrus = status.walrus.clone().unwrap_or_default();
    text.family(
        "haulout_sliver_bytes_total",
        "counter",
        "Bytes of slivers read on this machine, by source.",
    );
    for (source, counts) in
        [("here", walrus.from_here), ("peers", walrus.from_peers), ("nodes", walrus.from_nodes)]
    {
        text.labelled("haulout_sliver_bytes_total", &[("source", &source)], counts.bytes);
    }
    text.one(
        "haulout_sliver_fetched_bytes_total",
        "counter",
        "Bytes fetched from storage nodes, for this machine and for others.",
        walrus.fetched.bytes,
    );
    text.one(
        "haulout_sliver_cache_bytes",
        "gauge",
        "Bytes of slivers and metadata kept on disk.",
        walrus.kept.bytes,
    );
}

fn agent(text: &mut Exposition, status: &AgentStatus) {
    text.family("haulout_info", "gauge", "Version of the agent; always 1.");
    text.labelled("haulout_info", &[("version", &status.version)], 1);
    text.one(
        "haulout_uptime_seconds",
        "gauge",
        "Seconds since the agent started.",
        status.uptime_seconds,
    );
    text.one(
        "haulout_warnings",
        "gauge",
        "Warnings that haulout status shows.",
        status.warnings.len(),
    );
    text.one(
        "haulout_store_paths",
        "gauge",
        "Valid paths in the machine's store.",
        status.store.paths_total.unwrap_or_default(),
    );
    text.one(
        "haulout_store_paths_shared",
        "gauge",
        "Paths that anybody on the network may have.",
        status.store.paths_shared.unwrap_or_default(),
    );
    let cache = &status.cache;
    text.one("haulout_cache_bytes", "gauge", "Bytes of content in the cache.", cache.used_bytes);
    text.one("haulout_cache_quota_bytes", "gauge", "Bytes the cache may hold.", cache.quota_bytes);
    text.one(
        "haulout_cache_paused",
        "gauge",
        "1 while nothing is cached (disk full or read-only).",
        u8::from(cache.paused.is_some()),
    );
}

fn nix_side(text: &mut Exposition, status: &AgentStatus) {
    let http = &status.counters.http;
    text.one("haulout_http_connections", "gauge", "Connections of Nix open now.", http.connections);
    text.family("haulout_narinfo_total", "counter", "narinfos asked for, by answer.");
    text.labelled("haulout_narinfo_total", &[("answer", &"hit")], http.narinfo_hit);
    text.labelled("haulout_narinfo_total", &[("answer", &"miss")], http.narinfo_miss);
    text.family("haulout_nar_total", "counter", "NARs asked for, by how that ended.");
    for (end, count) in [
        ("complete", http.nar_complete),
        ("cut", http.nar_cut),
        ("abandoned", http.nar_abandoned),
        ("miss", http.nar_miss),
    ] {
        text.labelled("haulout_nar_total", &[("end", &end)], count);
    }
    text.one(
        "haulout_handler_panics_total",
        "counter",
        "Bugs met while answering Nix.",
        http.panics,
    );
}

fn transfers(text: &mut Exposition, status: &AgentStatus) {
    let counters = &status.counters;
    let bytes = &counters.nar_bytes_by_source;
    text.family(
        "haulout_nar_bytes_total",
        "counter",
        "NAR bytes given to Nix, by where they came from.",
    );
    for (source, count) in [
        ("store", bytes.store),
        ("cache", bytes.cache),
        ("peers", bytes.peers),
        ("archive", bytes.archive),
        ("upstream", bytes.upstream),
    ] {
        text.labelled("haulout_nar_bytes_total", &[("source", &source)], count);
    }
    text.one(
        "haulout_peer_received_bytes_total",
        "counter",
        "NAR bytes received from peers.",
        counters.bytes_from_peers,
    );
    text.one(
        "haulout_peer_sent_bytes_total",
        "counter",
        "NAR bytes given to peers.",
        counters.bytes_to_peers,
    );
    text.one(
        "haulout_saved_bytes_total",
        "counter",
        "NAR bytes that neighbours gave, over all runs of the agent.",
        status.saved.total_bytes,
    );
    text.one(
        "haulout_relayed_bytes_total",
        "counter",
        "Bytes that neighbours had fetched from outside and relayed, over all runs of the agent.",
        status.saved.relayed_total_bytes,
    );
    text.family(
        "haulout_failures_total",
        "counter",
        "What went wrong without reaching Nix, by kind.",
    );
    for (kind, count) in &counters.failures {
        text.labelled("haulout_failures_total", &[("kind", kind)], *count);
    }
    let coming = status.transfers.iter().filter(|one| one.incoming).count();
    text.family("haulout_transfers", "gauge", "NARs under way now.");
    text.labelled("haulout_transfers", &[("direction", &"in")], coming);
    text.labelled("haulout_transfers", &[("direction", &"out")], status.transfers.len() - coming);
}

/// No label names a peer: there may be a thousand, and they come and go.
fn peer_side(text: &mut Exposition, peers: &PeersReport) {
    text.family("haulout_peers", "gauge", "Peers known, by state.");
    for state in ["connected", "connecting", "seen", "silent", "banned"] {
        let count = peers.peers.iter().filter(|peer| peer.state == state).count();
        text.labelled("haulout_peers", &[("state", &state)], count);
    }
    let faults = peers.peers.iter().flat_map(|peer| peer.faults.values()).sum::<u64>();
    text.one("haulout_peer_faults", "gauge", "Faults of the peers now known.", faults);
}

fn sources(text: &mut Exposition, status: &AgentStatus) {
    text.family("haulout_source_up", "gauge", "1 when an archive or upstream is in use.");
    text.family(
        "haulout_source_bytes_total",
        "counter",
        "Bytes fetched from an archive or upstream.",
    );
    let each = || {
        let upstreams = status.upstreams.iter().map(|one| ("upstream", one));
        status.archives.iter().map(|one| ("archive", one)).chain(upstreams)
    };
    let mut source = |kind: &str, one: &SourceReport| {
        let labels: [(&str, &dyn Display); 2] = [("kind", &kind), ("name", &one.name)];
        text.labelled("haulout_source_up", &labels, u8::from(one.usable));
        text.labelled("haulout_source_bytes_total", &labels, one.bytes);
    };
    each().for_each(|(kind, one)| source(kind, one));
    text.family(
        "haulout_source_requests_total",
        "counter",
        "Requests to an upstream, by how they ended.",
    );
    for (kind, one) in each() {
        let Some(answered) = one.requests else { continue };
        for (end, count) in [("answered", answered), ("failed", one.failed)] {
            let labels: [(&str, &dyn Display); 3] =
                [("kind", &kind), ("name", &one.name), ("end", &end)];
            text.labelled("haulout_source_requests_total", &labels, count);
        }
    }
}

/// Text in Prometheus' exposition format.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| {
                let value = value
                    .to_string()
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n");
                format!("{label}=\"{value}\"")
            })
            .collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all_families() -> BTreeSet<String> {
        let status = AgentStatus {
            upstreams: vec![SourceReport { name: "a\"b\nc".into(), ..SourceReport::default() }],
            ..AgentStatus::default()
        };
        let text = metrics(&status, &PeersReport::default());
        assert!(text.contains("haulout_source_up{kind=\"upstream\",name=\"a\\\"b\\nc\"} 0\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_documented_list_is_the_list() {
        let page = include_str!("../../../docs/metrics.md");
        let documented: BTreeSet<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .map(|name| name.split('{').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(documented, all_families());
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_exist() {
        let dashboard = include_str!("../../../packaging/grafana/haulout.json");
        let known = all_families();
        let mut asked = 0;
        for (at, _) in dashboard.match_indices("haulout_") {
            let name: String = dashboard[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            assert!(known.contains(&name), "{name}");
            asked += 1;
        }
        assert!(asked > 8);
    }
}
