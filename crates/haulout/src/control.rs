//! `status`, `peers` and `why`: what the running agent says of itself.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use haulout_gateway::api::{
    AgentStatus, ApiError, CacheReport, PeersReport, SliverCounts, Verdict, WhyReport,
};
use hyper::StatusCode;
use serde::de::DeserializeOwned;

use crate::cli::ControlArgs;
use crate::client::Client;
use crate::error::{Context, Failure, Outcome};
use crate::report::{self, Table};

/// An answer of the control interface is small; a thousand peers take a few hundred KiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// `haulout status`
pub(crate) fn status(args: &ControlArgs) -> Outcome<ExitCode> {
    show(args, "status", |report: &AgentStatus| {
        print!("{}", status_text(report));
        ExitCode::SUCCESS
    })
}

/// `haulout peers`
pub(crate) fn peers(args: &ControlArgs) -> Outcome<ExitCode> {
    show(args, "peers", |report: &PeersReport| {
        print!("{}", peers_text(report));
        ExitCode::SUCCESS
    })
}

/// `haulout why PATH`; exit code 1 when the path could not be had.
pub(crate) fn why(path: &str, args: &ControlArgs) -> Outcome<ExitCode> {
    let hash = hash_part_of(path)?;
    show(args, &format!("why/{hash}"), |report: &WhyReport| {
        print!("{}", why_text(report));
        ExitCode::from(u8::from(report.verdict == Verdict::Unavailable))
    })
}

/// The hash part of a full store path, a base name or itself.
fn hash_part_of(path: &str) -> Outcome<haulout_nix::HashPart> {
    let base = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let hash = base.split('-').next().unwrap_or_default();
    hash.parse::<haulout_nix::HashPart>().map_err(|error| {
        Failure::new(format!("{path:?} does not name a store path"))
            .because(error)
            .hint("for example /nix/store/<32 characters>-hello-2.12, or only the 32 characters")
    })
}

/// Asks the agent, prints its JSON or hands it to `print`.
fn show<T: DeserializeOwned>(
    args: &ControlArgs,
    question: &str,
    print: impl FnOnce(&T) -> ExitCode,
) -> Outcome<ExitCode> {
    let address = resolve(&args.agent)?;
    let (report, body) = block_on(ask(address, question))?;
    let code = if args.json {
        println!("{}", String::from_utf8_lossy(&body).trim_end());
        ExitCode::SUCCESS
    } else {
        print(&report)
    };
    Ok(code)
}

/// The agent's answer to a question of the control interface, read and as it came.
pub(crate) async fn ask<T: DeserializeOwned>(
    address: SocketAddr,
    question: &str,
) -> Outcome<(T, Bytes)> {
    let mut client = Client::connect(address).await?;
    let (status, body) = client.get(&format!("/api/v1/{question}"), ANSWER_BYTES_MAX).await?;
    if status != StatusCode::OK {
        let told: ApiError = serde_json::from_slice(&body).unwrap_or_default();
        let failure =
            Failure::new(format!("the agent at {address} answered {status}: {}", told.error));
        return Err(told.hint.into_iter().fold(failure, Failure::hint));
    }
    let report = serde_json::from_slice(&body)
        .context(|| format!("what answers at {address} is not a haulout agent of this version"))?;
    Ok((report, body))
}

/// An address with a port, by number or by name.
pub(crate) fn resolve(agent: &str) -> Outcome<SocketAddr> {
    agent.to_socket_addrs().context(|| format!("{agent:?} is not an address"))?.next().ok_or_else(
        || Failure::new(format!("{agent:?} has no address")).hint("for example 127.0.0.1:5299"),
    )
}

/// Runs a short piece of asynchronous work.
pub(crate) fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the I/O runtime".to_owned())?
        .block_on(work)
}

fn status_text(status: &AgentStatus) -> String {
    [who(status), given(status), sources(status), passing(status)].concat()
}

/// What it is, and what it has.
fn who(status: &AgentStatus) -> String {
    let uptime = report::duration(Duration::from_secs(status.uptime_seconds));
    let mut text = format!(
        "haulout {} (process {}) is {}, up {uptime}\n",
        status.version,
        status.pid,
        format!("{:?}", status.state).to_lowercase(),
    );
    if let Some(id) = &status.peer_id {
        text.push_str(&format!("  peer id     {id}\n"));
    }
    text.push_str(&format!("  for Nix     {}\n", addresses("http://", &status.http_listen)));
    text.push_str(&format!("  for peers   {}\n", addresses("udp ", &status.mesh_listen)));
    for network in &status.networks {
        text.push_str(&format!("  network     {}\n", report::network(network)));
    }
    if status.silent {
        text.push_str("  silent      no known network here: only this machine's Nix is served\n");
    }
    let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    text.push_str(&format!(
        "  store       {}: {} paths, {} of them shared\n",
        status.store.real_dir.as_ref().unwrap_or(&status.store.dir),
        number(status.store.paths_total),
        number(status.store.paths_shared),
    ));
    text.push_str(&format!("  cache       {}\n", cache_text(&status.cache)));
    text
}

/// What it was asked for, and what it gave.
fn given(status: &AgentStatus) -> String {
    let counters = &status.counters;
    let mut text = String::new();
    let http = &counters.http;
    text.push_str(&format!(
        "  narinfos    {} asked, {} answered, {} not here\n",
        http.narinfo_asked, http.narinfo_hit, http.narinfo_miss
    ));
    let from = &counters.nar_bytes_by_source;
    text.push_str(&format!(
        "  to Nix      {} ({} from peers, {} from archives, {} from upstreams, {} from the cache, {} from the own store)\n",
        report::bytes(http.bytes_to_nix),
        report::bytes(from.peers),
        report::bytes(from.archive),
        report::bytes(from.upstream),
        report::bytes(from.cache),
        report::bytes(from.store),
    ));
    text.push_str(&format!("  to peers    {}\n", report::bytes(counters.bytes_to_peers)));
    text.push_str(&format!(
        "  saved       {} today, {} in total (by neighbours, instead of from outside)\n",
        report::bytes(status.saved.outside_avoided().0),
        report::bytes(status.saved.outside_avoided().1),
    ));
    let site = &counters.site;
    if site.fetches + site.bytes_relayed_in > 0 {
        text.push_str(&format!(
            "  outside     {} fetched, {} more came through others, {} relayed to others\n",
            report::bytes(site.bytes_fetched),
            report::bytes(site.bytes_relayed_in),
            report::bytes(site.bytes_relayed_out),
        ));
    }
    text
}

/// Where else it gets things from.
fn sources(status: &AgentStatus) -> String {
    let mut text = String::new();
    for archive in &status.archives {
        text.push_str(&format!(
            "  archive     {}: {}{}, {} read\n",
            archive.shown(),
            archive.state,
            archive.detail.as_ref().map_or_else(String::new, |detail| format!(", {detail}")),
            report::bytes(archive.bytes),
        ));
    }
    for one in &status.upstreams {
        text.push_str(&format!(
            "  upstream    {}: {}, {} fetched",
            one.name,
            one.state,
            report::bytes(one.bytes)
        ));
        let requests = one.requests.unwrap_or_default();
        text.push_str(&format!(", {requests} questions answered, {} requests failed", one.failed));
        if let Some(detail) = &one.detail {
            text.push_str(&format!(" ({detail})"));
        }
        text.push('\n');
    }
    if let Some(walrus) = &status.walrus {
        let of = |counts: SliverCounts| {
            format!("{} slivers ({})", counts.slivers, report::bytes(counts.bytes))
        };
        text.push_str(&format!(
            "  walrus      {}: {} from neighbours, {} from here, {} from storage nodes; {} kept\n",
            walrus.network,
            of(walrus.from_peers),
            of(walrus.from_here),
            of(walrus.from_nodes),
            report::bytes(walrus.kept.bytes),
        ));
    }
    text
}

/// What is going on, and what is wrong.
fn passing(status: &AgentStatus) -> String {
    let mut text = String::new();
    let failures: Vec<String> =
        status.counters.failures.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    if !failures.is_empty() {
        text.push_str(&format!("  avoided     {}\n", failures.join(", ")));
    }
    for transfer in &status.transfers {
        text.push_str(&format!(
            "  {}      {} of {} {} {}: {}\n",
            if transfer.incoming { "coming" } else { "giving" },
            report::bytes(transfer.done_bytes),
            report::bytes(transfer.total_bytes),
            if transfer.incoming { "from" } else { "to" },
            transfer.peers.join(", "),
            transfer.path
        ));
    }
    for warning in &status.warnings {
        text.push_str(&format!("warning: {}\n", warning.text));
        if let Some(hint) = &warning.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
    }
    text
}

fn cache_text(cache: &CacheReport) -> String {
    let Some(dir) = &cache.dir else { return "off".to_owned() };
    let mut text = format!("{dir}: {} narinfos", cache.narinfos);
    if cache.nars > 0 {
        let (used, quota) = (report::bytes(cache.used_bytes), report::bytes(cache.quota_bytes));
        text.push_str(&format!(", {} NARs with {used} of {quota}", cache.nars));
    }
    if let Some(paused) = &cache.paused {
        text.push_str(&format!("; paused: {paused}"));
    }
    text
}

fn addresses(prefix: &str, list: &[SocketAddr]) -> String {
    let list: Vec<String> = list.iter().map(|address| format!("{prefix}{address}")).collect();
    if list.is_empty() { "off".to_owned() } else { list.join(", ") }
}

fn peers_text(report: &PeersReport) -> String {
    if report.peers.is_empty() {
        return "No peers seen yet. A peer on the same network shows up within seconds of its start.\n"
            .to_owned();
    }
    let heading =
        ["peer", "address", "state", "rtt", "paths", "from it", "at", "to it", "seen", "trouble"];
    let mut table = Table::new(&heading, &[3, 4, 5, 6, 7, 8]);
    for peer in &report.peers {
        let faults: Vec<String> =
            peer.faults.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let ban = peer.banned_seconds.map(|left| format!("banned for {left} s"));
        table.row([
            peer.peer.chars().take(8).collect(),
            peer.addr.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            format!("{} {}", peer.state, peer.membership),
            peer.rtt_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms")),
            peer.holdings_text().unwrap_or_else(|| "?".to_owned()),
            report::bytes(peer.bytes_from),
            peer.throughput
                .map_or_else(|| "-".to_owned(), |rate| format!("{}/s", report::bytes(rate as u64))),
            report::bytes(peer.bytes_to),
            peer.last_seen_seconds.map_or_else(|| "-".to_owned(), |ago| format!("{ago} s ago")),
            ban.into_iter().chain(faults).collect::<Vec<_>>().join(", "),
        ]);
    }
    table.render()
}

fn why_text(why: &WhyReport) -> String {
    let verdict = match why.verdict {
        Verdict::Available => "available",
        Verdict::Likely => "likely available",
        Verdict::Unavailable => "not available",
    };
    let mut text = format!("{}: {verdict}\n  {}\n", why.path, why.summary);
    for reason in &why.reasons {
        text.push_str(&format!("  - {reason}\n"));
    }
    for signature in &why.signatures {
        let judged = match (signature.trusted, signature.valid) {
            (true, true) => "valid, by a trusted key",
            (true, false) => "does not hold",
            (false, _) => "by a key that is not trusted here",
        };
        text.push_str(&format!("  signature {}: {judged}\n", signature.key));
    }
    let mut table = Table::new(&["peer", "has it", "rtt", "state", "last refusal"], &[2]);
    for peer in &why.candidates {
        table.row([
            peer.peer.chars().take(8).collect(),
            if peer.has_prefix { "says so" } else { "no" }.to_owned(),
            peer.rtt_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms")),
            peer.state.clone(),
            peer.last_refusal.clone().unwrap_or_default(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_named_in_three_ways() {
        let hash = "0c0nqf1k8r8xyh5hbz4w1mfcmdlz7hpj";
        for text in [
            format!("/nix/store/{hash}-hello-2.12/bin/hello"),
            format!("/nix/store/{hash}-hello-2.12"),
            format!("{hash}-hello-2.12"),
            hash.to_owned(),
        ] {
            let named = hash_part_of(&text);
            if text.ends_with("bin/hello") {
                assert!(named.unwrap_err().report().contains("hint: "));
            } else {
                assert_eq!(named.unwrap().to_string(), hash);
            }
        }
    }
}
