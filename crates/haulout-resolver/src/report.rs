//! What the resolver tells people: status, peers, why.

use haulout_gateway::api::{
    AgentState, AgentStatus, CandidateReport, PeerReport, PeersReport, RefusalReport,
    SignatureReport, SiteCounters, SliverCounts, SourceCounts, SourceReport, StoreReport,
    TransferReport, Verdict, WalrusReport, Warning, WhyReport,
};
use haulout_mesh::{Membership, PeerState, PeerView};
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::site::Why;
use haulout_upstream::{Kind, UpstreamStatus};

use crate::local::Given;
use crate::resolver::{Inner, Origin, Resolver};
use crate::site::walrus::{SiteWalrus, Tally};
use crate::trust::{Proof, Trust};

/// Transfers listed at most: more than anybody reads.
const TRANSFERS_MAX: usize = 256;

/// Fills in what the resolver knows.
pub(crate) fn status(inner: &Inner, mut about: AgentStatus) -> AgentStatus {
    let (total, shared) = inner.local.counts();
    let real = inner.store.real_store.display().to_string();
    let dir = inner.store.store_dir.as_str().to_owned();
    about.state =
        if about.state == AgentState::Stopping { about.state } else { AgentState::Serving };
    about.uptime_seconds = inner.started.elapsed().as_secs();
    about.store = StoreReport {
        real_dir: (real != dir).then_some(real),
        dir,
        paths_total: Some(total as u64),
        paths_shared: Some(shared as u64),
    };
    if let Some(cache) = inner.disk.cache() {
        let stats = cache.stats();
        about.cache.used_bytes = stats.used_bytes;
        about.cache.quota_bytes = stats.quota_bytes;
        about.cache.nars = stats.nars;
        about.cache.narinfos = stats.narinfos;
        about.cache.paused = stats.paused;
        about.warnings.extend(stats.warnings.into_iter().map(|text| Warning {
            code: "cache".to_owned(),
            text,
            hint: None,
        }));
    }
    let stats = &inner.stats;
    about.counters.nars_by_source = SourceCounts {
        store: stats.nar_store.get(),
        cache: stats.nar_cache.get(),
        peers: stats.nar_peers.get().saturating_sub(stats.nar_outside.get()),
        archive: stats.nar_archive.get(),
        upstream: stats.nar_outside.get().saturating_sub(stats.nar_archive.get()),
    };
    let outside = stats.bytes_archive.get() + stats.nar_bytes_outside.get();
    about.counters.nar_bytes_by_source = SourceCounts {
        store: stats.bytes_store.get(),
        cache: stats.bytes_cache.get(),
        peers: stats.bytes_delivered.get().saturating_sub(outside),
        archive: stats.bytes_archive.get(),
        upstream: stats.nar_bytes_outside.get(),
    };
    let (kept_in_memory, kept_on_disk) = inner.site.kept();
    about.counters.site = SiteCounters {
        kept_in_memory,
        kept_on_disk,
        fetches: stats.outside_fetches.get(),
        bytes_fetched: stats.bytes_outside.get(),
        bytes_fetched_because: Why::ALL
            .into_iter()
            .map(|why| (why.name().to_owned(), stats.outside_because(why).get()))
            .filter(|(_, bytes)| *bytes > 0)
            .collect(),
        bytes_fetched_again: stats.bytes_outside_again.get(),
        bytes_relayed_in: stats.bytes_relayed_in.get(),
        bytes_relayed_out: stats.bytes_relayed_out.get(),
        nars: stats.nar_outside.get(),
        narinfos: stats.info_outside.get(),
    };
    if let Some(archives) = inner.outsides.archives.get() {
        about.archives = archives.reports();
    }
    if let Some(upstream) = inner.outsides.upstream.get() {
        about.upstreams = upstream.status().into_iter().map(upstream_report).collect();
    }
    about.walrus = inner.walrus.get().map(walrus);
    about.counters.bytes_from_peers = stats.bytes_in.get();
    // Frames from the mesh's memory were not read here; peers long gone are
    // not counted there.
    let sent = inner.peers.views().iter().map(|view| view.bytes_given).sum();
    about.counters.bytes_to_peers = stats.bytes_out.get().max(sent);
    let failures = [
        ("nar-failed", stats.nar_failed.get()),
        ("lie", stats.lies.get()),
        ("tree-conflict", stats.conflicts.get()),
        ("source-replaced", stats.replaced.get()),
    ];
    about.counters.failures = failures
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, n)| (kind.to_owned(), n))
        .collect();
    let coming = inner.transfers.progress().into_iter().map(|one| transfer(inner, one));
    let giving = inner.local.giving().into_iter().map(|one| given(inner, &one));
    about.transfers = coming.chain(giving).take(TRANSFERS_MAX).collect();
    about.refusals = inner
        .reasons
        .latest()
        .into_iter()
        .map(|(ago, path, why)| RefusalReport {
            ago_seconds: ago.as_secs(),
            path: path.to_string(),
            why,
        })
        .collect();
    about
}

fn walrus(walrus: &SiteWalrus) -> WalrusReport {
    let counts = walrus.counts();
    let of = |tally: Tally| SliverCounts { slivers: tally.slivers, bytes: tally.bytes };
    WalrusReport {
        network: walrus.name().to_owned(),
        id: walrus.id().iter().map(|byte| format!("{byte:02x}")).collect(),
        from_here: of(counts.from_here),
        from_peers: of(counts.from_peers),
        from_nodes: of(counts.from_nodes),
        fetched: of(counts.fetched),
        kept: SliverCounts { slivers: counts.kept_slivers, bytes: counts.kept_bytes },
        liars: counts.liars,
    }
}

fn transfer(inner: &Inner, one: crate::transfer::Progress) -> TransferReport {
    TransferReport {
        path: inner.store.store_dir.display(&one.path),
        incoming: true,
        peers: one.sources.iter().map(haulout_swarm::PeerId::short).collect(),
        done_bytes: one.done,
        total_bytes: one.size,
        seconds: one.running.as_secs_f64(),
    }
}

fn given(inner: &Inner, one: &Given) -> TransferReport {
    TransferReport {
        path: inner.store.store_dir.display(&one.path),
        incoming: false,
        peers: vec![one.peer.short()],
        done_bytes: one.bytes,
        total_bytes: one.size,
        seconds: one.running.as_secs_f64(),
    }
}

fn upstream_report(one: UpstreamStatus) -> SourceReport {
    let state = match (one.left_alone, one.latency) {
        (Some(_), _) => "left alone",
        (None, None) if one.trouble.is_some() => "failing",
        (None, None) => "not asked yet",
        (None, Some(_)) => "good",
    };
    let mut detail = Vec::new();
    if one.kind == Kind::Neighbour {
        detail.push("found on this network".to_owned());
    }
    detail.extend(one.left_alone.map(|left| format!("asked again in {} s", left.as_secs() + 1)));
    detail.extend(one.trouble.map(|trouble| format!("last trouble: {trouble}")));
    SourceReport {
        name: one.url,
        label: None,
        usable: one.left_alone.is_none(),
        state: state.to_owned(),
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        bytes: one.bytes,
        requests: Some(one.found + one.absent),
        failed: one.failed,
        latency_ms: one.latency.map(|latency| latency.as_secs_f64() * 1e3),
    }
}

/// Everybody known.
pub(crate) fn peers(inner: &Inner) -> PeersReport {
    PeersReport { peers: inner.peers.views().iter().map(peer).collect() }
}

fn state(view: &PeerView) -> &'static str {
    match view.state {
        PeerState::Known => "seen",
        PeerState::Dialling => "connecting",
        PeerState::Connected => "connected",
        PeerState::Silent => "silent",
        PeerState::Banned => "banned",
    }
}

fn peer(view: &PeerView) -> PeerReport {
    let membership = match view.membership {
        Membership::Member => "member",
        Membership::Stranger => "stranger",
    };
    PeerReport {
        peer: view.id.to_string(),
        addr: view.addrs.first().copied(),
        state: state(view).to_owned(),
        membership: membership.to_owned(),
        found_by: view.discovered.then(|| "mdns".to_owned()),
        rtt_ms: view.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        throughput: view.throughput,
        holdings: view.holdings.map(|count| count as u64),
        holdings_in_part: view.holdings_in_part,
        bytes_from: view.bytes_taken,
        bytes_to: view.bytes_given,
        faults: view
            .faults_by_kind
            .iter()
            .map(|(fault, count)| (fault.word().to_owned(), *count))
            .collect(),
        last_fault: view.reasons.last().cloned(),
        banned_seconds: view.banned_for.map(|left| left.as_secs()),
        last_seen_seconds: view.heard_ago.map(|ago| ago.as_secs()),
    }
}

/// Why a path is or is not offered to Nix. Asks the same way Nix's question
/// would.
pub(crate) async fn why(resolver: &Resolver, hash: HashPart) -> WhyReport {
    let inner = &resolver.inner;
    let mut report = WhyReport { path: hash.to_string(), ..WhyReport::default() };
    let local = std::sync::Arc::clone(&inner.local);
    let own = tokio::task::spawn_blocking(move || {
        (local.info(&hash), local.kept_info(&hash), local.shared_with(&hash))
    })
    .await;
    let (own, kept, shared_with) = own.unwrap_or_default();
    report.cached.nar = kept.is_some();
    report.in_own_store = own.is_some();
    report.shared_with = shared_with.into_iter().map(str::to_owned).collect();
    let views = inner.peers.views();
    report.candidates = candidates(inner, &views, &hash);
    report.cached.narinfo = inner.disk.info(&hash).is_some();
    let found = resolver.origin(hash, None).await;
    if report.candidates.is_empty() {
        // In a large network they may have been named only now.
        report.candidates = candidates(inner, &views, &hash);
    }
    let trust = inner.trust.load_full();
    let info = found.as_ref().map(|origin| std::sync::Arc::clone(origin.info())).or(own);
    if let Some(info) = &info {
        describe(&trust, info, &mut report);
    }
    match &found {
        Some(origin) => {
            report.verdict = Verdict::Available;
            report.summary = summary(&trust, origin);
        }
        None => {
            let refusal = info.as_ref().and_then(|info| trust.judge(info).err());
            let announced = report.candidates.iter().filter(|one| one.has_prefix).count();
            report.summary = match refusal {
                Some(refusal) => {
                    format!("it is in the own store, but not offered to Nix: {refusal}")
                }
                None => unavailable(&views, announced, inner.reasons.of(&hash).last()),
            };
        }
    }
    report.reasons = inner.reasons.of(&hash);
    report
}

/// Why a path that is not in the own store cannot be had, in one sentence.
fn unavailable(views: &[PeerView], announced: usize, latest: Option<&String>) -> String {
    if announced > 0 {
        let who = match announced {
            1 => "one peer announces it".to_owned(),
            n => format!("{n} peers announce it"),
        };
        return match latest {
            Some(event) => format!("{who}, but gave nothing that can be believed: {event}"),
            None => format!("{who}, but gave nothing that can be believed"),
        };
    }
    let connected = views.iter().filter(|view| view.state == PeerState::Connected).count();
    let mut text = match (views.len(), connected) {
        (0, _) => "it is not in the own store, and no peer is known".to_owned(),
        (_, 0) => "it is not in the own store, and no peer is connected".to_owned(),
        (_, 1) => "neither the own store nor the one connected peer offers it".to_owned(),
        (_, n) => format!("neither the own store nor any of {n} connected peers offers it"),
    };
    // What a banned peer announces is not kept: it may have it.
    let banned: Vec<String> = views
        .iter()
        .filter_map(|view| {
            let left = view.banned_for?.as_secs();
            let why = view.reasons.last().map_or("a lie", String::as_str);
            Some(format!("{} (for {why}, {left} s more)", view.id.short()))
        })
        .collect();
    if !banned.is_empty() {
        text.push_str(&format!("; banned and not asked: {}", banned.join(", ")));
    }
    text
}

fn summary(trust: &Trust, origin: &Origin) -> String {
    let proof = match trust.judge(origin.info()) {
        Ok(Proof::Signed(key)) => format!("signed by {key}"),
        Ok(Proof::ContentAddressed) => "content-addressed".to_owned(),
        Err(refusal) => refusal.to_string(),
    };
    match origin {
        Origin::Store(_) => format!("in the own store, {proof}"),
        Origin::Cache(_) => format!("in the cache, {proof}"),
        Origin::Archive(_) => format!("proven by an archive, {proof}"),
        Origin::Outside(_) => format!("from a cache outside, {proof}"),
        Origin::Peers(found) => match found.from {
            Some(peer) => format!("peer {} described it, {proof}", peer.short()),
            None => format!("remembered, {proof}"),
        },
    }
}

fn describe(trust: &Trust, info: &PathInfo, report: &mut WhyReport) {
    report.path = trust.store_dir.display(&info.path);
    report.content_address_holds = info.ca.map(|_| info.content_address_holds(&trust.store_dir));
    let fingerprint = info.fingerprint(&trust.store_dir);
    report.signatures = info
        .signatures
        .iter()
        .map(|signature| SignatureReport {
            key: signature.name().to_owned(),
            trusted: trust.keys.has_name(signature.name()),
            valid: trust.keys.verify(fingerprint.as_bytes(), signature).is_some(),
        })
        .collect();
}

fn candidates(inner: &Inner, views: &[PeerView], hash: &HashPart) -> Vec<CandidateReport> {
    let declared = inner.peers.who_has(hash);
    let undeclared = inner.peers.undeclared();
    let all =
        declared.iter().map(|peer| (peer, true)).chain(undeclared.iter().map(|peer| (peer, false)));
    all.map(|(peer, has_prefix)| {
        let view = views.iter().find(|view| view.id == *peer);
        CandidateReport {
            peer: peer.to_string(),
            has_prefix,
            rtt_ms: view.and_then(|view| view.rtt).map(|rtt| rtt.as_secs_f64() * 1e3),
            state: view.map_or("connected", state).to_owned(),
            last_refusal: view.and_then(|view| view.reasons.last().cloned()),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use haulout_swarm::PeerId;

    use super::*;

    fn view(state: PeerState) -> PeerView {
        PeerView {
            id: PeerId::from_bytes([7; 32]),
            addrs: Vec::new(),
            membership: Membership::Stranger,
            state,
            rtt: None,
            holdings: None,
            holdings_in_part: false,
            bytes_given: 0,
            bytes_taken: 0,
            wire_sent: 0,
            wire_received: 0,
            asked_us: 0,
            asked_it: 0,
            throughput: None,
            heard_ago: None,
            faults: 0,
            faults_by_kind: Vec::new(),
            banned_for: (state == PeerState::Banned).then_some(Duration::from_secs(25)),
            reasons: vec!["wrong content".to_owned()],
            discovered: true,
        }
    }

    #[test]
    fn each_reason_has_its_sentence() {
        let said = |views: &[PeerView], announced, latest: Option<&str>| {
            unavailable(views, announced, latest.map(str::to_owned).as_ref())
        };
        assert!(said(&[], 0, None).ends_with("no peer is known"));
        assert!(said(&[view(PeerState::Known)], 0, None).ends_with("no peer is connected"));
        let two = [view(PeerState::Connected), view(PeerState::Banned)];
        let text = said(&two, 0, None);
        assert!(text.contains("the one connected peer offers it"), "{text}");
        assert!(text.ends_with("(for wrong content, 25 s more)"), "{text}");
        let text = said(&two, 1, Some("info from peer x refused: no signature by a trusted key"));
        assert!(text.starts_with("one peer announces it, but"), "{text}");
        assert!(text.ends_with("no signature by a trusted key"), "{text}");
    }
}
