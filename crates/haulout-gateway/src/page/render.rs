//! The sections of the page, each a piece of HTML made from the reports of the control interface.

use std::fmt::{Display, Write};

use crate::Bytes;
use crate::api::{
    AgentState, AgentStatus, NetworkReport, PeerReport, PeersReport, RefusalReport, SourceReport,
    TransferReport,
};

use super::html::{Seconds, Text};

/// Rows shown of one list; the rest is a number.
const ROWS_MAX: usize = 100;

/// A part of the page with an id of its own, so that it can be renewed alone.
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) html: String,
}

/// All sections in the order of the page.
pub(super) fn sections(status: &AgentStatus, peers: &PeersReport) -> Vec<Section> {
    let section = |id, title, html| Section { id, title, html };
    vec![
        section("agent", "This machine", agent(status)),
        section("saved", "Saved", saved(status)),
        section("peers", "Who is here", peer_table(peers)),
        section("transfers", "On the way", transfers(&status.transfers)),
        section("sources", "Archives and upstreams", sources(status)),
        section("refused", "Refused lately", refusals(&status.refusals)),
        section("settings", "Settings in force", settings(status)),
    ]
}

fn agent(status: &AgentStatus) -> String {
    let state = match status.state {
        AgentState::Starting => ("wait", "starting"),
        AgentState::Serving => ("good", "serving"),
        AgentState::Stopping => ("wait", "stopping"),
    };
    let mut html = format!("<p class=\"state {}\">{}</p>", state.0, state.1);
    for warning in &status.warnings {
        let _ = write!(html, "<p class=\"warning\"><b>Warning:</b> {}", Text(&warning.text));
        if let Some(hint) = &warning.hint {
            let _ = write!(html, "<br><span class=\"hint\">{}</span>", Text(hint));
        }
        html.push_str("</p>");
    }
    if status.silent {
        html.push_str(
            "<p class=\"state wait\">silent</p><p class=\"note\">None of the known networks is here: nobody is told of this \
             machine, and only its own Nix is served.</p>",
        );
    }
    html.push_str("<dl>");
    let mut line = |name: &str, value: &dyn Display| {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", Text(value));
    };
    line("version", &status.version);
    line("up for", &Seconds(status.uptime_seconds));
    if let Some(id) = &status.peer_id {
        line("peer id", id);
    }
    line("mesh", &status.mesh.as_deref().unwrap_or("open: everybody on this network"));
    for network in &status.networks {
        line("network", &network_line(network));
    }
    if let (Some(all), Some(shared)) = (status.store.paths_total, status.store.paths_shared) {
        line("store", &format!("{all} paths, {shared} of them shared"));
    }
    if status.cache.dir.is_some() {
        let cache = &status.cache;
        let text = format!(
            "{} of {} used, {} NARs",
            Bytes(cache.used_bytes),
            Bytes(cache.quota_bytes),
            cache.nars
        );
        line("cache", &text);
        if let Some(paused) = &cache.paused {
            line("cache paused", paused);
        }
    }
    let http = &status.counters.http;
    line(
        "asked by Nix",
        &format!(
            "{} narinfos ({} answered), {} NARs",
            http.narinfo_asked, http.narinfo_hit, http.nar_asked
        ),
    );
    html.push_str("</dl>");
    html
}

fn network_line(network: &NetworkReport) -> String {
    let mut text = format!("{}: {}", network.interface, network.addresses.join(", "));
    match (&network.known_by, network.used) {
        (Some(rule), _) => text.push_str(&format!("; known by {rule}")),
        (None, false) => text.push_str("; not known, not used"),
        (None, true) => {}
    }
    text
}

fn saved(status: &AgentStatus) -> String {
    let from = &status.counters.nar_bytes_by_source;
    let mut html = format!(
        "<p class=\"big\"><b>{}</b> today, <b>{}</b> in total</p>\
         <p class=\"note\">did not have to come from outside: NARs from neighbours (unpacked), and what a neighbour had \
         fetched for everybody (packed). Days are those of UTC.</p><dl>",
        Bytes(status.saved.outside_avoided().0),
        Bytes(status.saved.outside_avoided().1)
    );
    let mut line = |name: &str, today: u64, total: u64| {
        let _ = write!(
            html,
            "<div><dt>{name}</dt><dd>{} today, {} in total</dd></div>",
            Bytes(today),
            Bytes(total)
        );
    };
    let saved = &status.saved;
    line("held by neighbours", saved.today_bytes, saved.total_bytes);
    line("fetched by a neighbour", saved.relayed_today_bytes, saved.relayed_total_bytes);
    html.push_str("</dl><h3>Given to Nix since the agent started</h3><dl>");
    for (name, bytes) in [
        ("from neighbours", from.peers),
        ("from archives", from.archive),
        ("from upstreams", from.upstream),
        ("from the cache here", from.cache),
        ("from the store here", from.store),
        ("given to neighbours", status.counters.bytes_to_peers),
    ] {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", Bytes(bytes));
    }
    html.push_str("</dl>");
    html
}

fn peer_table(report: &PeersReport) -> String {
    if report.peers.is_empty() {
        return "<p>Nobody yet. Another machine with haulout on this network shows up within seconds of its start; if it \
                does not, <code>haulout doctor</code> looks for the reason.</p>"
            .to_owned();
    }
    let heading = ["peer", "state", "address", "delay", "paths", "from it", "to it", "trouble"];
    let rows = report.peers.iter().map(peer_row);
    table("Machines seen", &heading, rows, report.peers.len())
}

fn peer_row(peer: &PeerReport) -> Vec<String> {
    let short: String = peer.peer.chars().take(8).collect();
    let mut trouble: Vec<String> =
        peer.faults.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    if let Some(left) = peer.banned_seconds {
        trouble.insert(0, format!("banned for {}", Seconds(left)));
    }
    if let Some(fault) = &peer.last_fault {
        trouble.push(fault.clone());
    }
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    vec![
        short,
        // On an open site everybody is a stranger; that is nothing to be told.
        match peer.membership.as_str() {
            "member" => format!("{}, member", peer.state),
            _ => peer.state.clone(),
        },
        or_dash(peer.addr.map(|addr| addr.to_string())),
        or_dash(peer.rtt_ms.map(|ms| format!("{ms:.2} ms"))),
        or_dash(peer.holdings_text()),
        Bytes(peer.bytes_from).to_string(),
        Bytes(peer.bytes_to).to_string(),
        trouble.join(", "),
    ]
}

fn transfers(list: &[TransferReport]) -> String {
    if list.is_empty() {
        return "<p>Nothing at the moment.</p>".to_owned();
    }
    let rows = list.iter().map(|one| {
        let name = one.path.rsplit('/').next().unwrap_or_default();
        let done = if one.total_bytes == 0 {
            Bytes(one.done_bytes).to_string()
        } else {
            let percent =
                one.done_bytes.min(one.total_bytes) as f64 * 100.0 / one.total_bytes as f64;
            format!("{percent:.0} % of {}", Bytes(one.total_bytes))
        };
        vec![
            if one.incoming { "comes from" } else { "goes to" }.to_owned(),
            one.peers.join(", "),
            done,
            name.to_owned(),
        ]
    });
    table("Transfers", &["", "peers", "done", "path"], rows, list.len())
}

fn sources(status: &AgentStatus) -> String {
    let all: Vec<(&str, &SourceReport)> = status
        .archives
        .iter()
        .map(|one| ("archive", one))
        .chain(status.upstreams.iter().map(|one| ("upstream", one)))
        .collect();
    if all.is_empty() {
        return "<p>Not listed here yet; <code>haulout status</code> says what came from outside.</p>".to_owned();
    }
    let rows = all.iter().map(|(kind, one)| {
        vec![
            (*kind).to_owned(),
            one.shown(),
            one.state.clone(),
            Bytes(one.bytes).to_string(),
            one.requests.map_or_else(
                || "–".to_owned(),
                |requests| format!("{requests}, {} failed", one.failed),
            ),
            one.latency_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms")),
            one.detail.clone().unwrap_or_default(),
        ]
    });
    table(
        "Sources outside",
        &["kind", "name", "state", "bytes", "asked", "delay", "about it"],
        rows,
        all.len(),
    )
}

fn refusals(list: &[RefusalReport]) -> String {
    if list.is_empty() {
        return "<p>Nothing: everything offered was as it should be.</p>".to_owned();
    }
    let rows = list.iter().map(|one| {
        vec![format!("{} ago", Seconds(one.ago_seconds)), one.path.clone(), one.why.clone()]
    });
    let table = table("Refusals", &["when", "path", "why"], rows, list.len());
    format!("<p class=\"note\">None of it reached Nix.</p>{table}")
}

fn settings(status: &AgentStatus) -> String {
    if status.settings.is_empty() {
        return "<p>Not known yet.</p>".to_owned();
    }
    let mut html = String::from("<details><summary>Show</summary><pre>");
    for (key, value) in &status.settings {
        let _ = writeln!(html, "{} = {}", Text(key), Text(value));
    }
    html.push_str("</pre></details>");
    html
}

/// A table whose cells are text from anywhere. Each cell names its column, for narrow screens.
fn table(
    caption: &str,
    heading: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    count: usize,
) -> String {
    let mut html = format!("<table><caption class=\"hidden\">{caption}</caption><thead><tr>");
    for cell in heading {
        let _ = write!(html, "<th scope=\"col\">{cell}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows.take(ROWS_MAX) {
        html.push_str("<tr>");
        for (cell, column) in row.iter().zip(heading) {
            let _ = write!(html, "<td data-label=\"{column}\">{}</td>", Text(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    if count > ROWS_MAX {
        let _ = write!(html, "<p class=\"note\">and {} more</p>", count - ROWS_MAX);
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a peer calls itself or is accused of, the page stays ours.
    #[test]
    fn hostile_words_stay_words() {
        let evil = "</td><script>alert(1)</script>\" onload=\"x";
        let peers = PeersReport {
            peers: vec![PeerReport {
                peer: evil.into(),
                state: evil.into(),
                last_fault: Some(evil.into()),
                faults: [(evil.to_owned(), 3)].into(),
                ..PeerReport::default()
            }],
        };
        let status = AgentStatus {
            version: evil.into(),
            mesh: Some(evil.into()),
            transfers: vec![TransferReport { path: evil.into(), ..TransferReport::default() }],
            refusals: vec![RefusalReport { why: evil.into(), ..RefusalReport::default() }],
            upstreams: vec![SourceReport {
                name: evil.into(),
                label: Some(evil.into()),
                ..SourceReport::default()
            }],
            settings: [(evil.to_owned(), evil.to_owned())].into(),
            ..AgentStatus::default()
        };
        for section in sections(&status, &peers) {
            assert!(!section.html.contains("<script"), "{}", section.html);
            assert!(!section.html.contains("\" onload"), "{}", section.html);
        }
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let peers = PeersReport { peers: vec![PeerReport::default(); 1000] };
        let html = peer_table(&peers);
        assert_eq!(html.matches("<tr>").count(), ROWS_MAX + 1);
        assert!(html.contains("and 900 more"));
    }
}
