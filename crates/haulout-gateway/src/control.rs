//! The control interface under `/api/v1/` and the page at `/`.
//!
//! Unlike Nix' own routes it tells what this machine is doing, so it answers only to clients on
//! this machine (unless configured) that address it by one of its own names (see [`crate::hosts`]).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use crate::{
    Substituter,
    api::{AgentStatus, ApiError},
    body::ResponseBody,
    handler::{Answer, Shared, not_found, whole},
    metrics, page,
    route::Control,
};

const JSON: &str = "application/json";

/// Readers of the page's events at most: each costs a report a second.
const READERS_MAX: usize = 16;
/// How often a reader of the events hears of changes.
const EVENTS_EVERY: Duration = Duration::from_secs(1);

/// `GET /`
pub(crate) async fn index<S: Substituter>(
    shared: &Shared<S>,
    request: &Request<Incoming>,
    peer: SocketAddr,
    head: bool,
) -> Answer {
    if let Some(refused) = refusal(shared, request, peer) {
        return refused;
    }
    let page = page::page(&status(shared).await, &shared.substituter.peers().await);
    let mut answer = private(whole("text/html; charset=utf-8", page, head));
    answer.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(page::CONTENT_SECURITY_POLICY),
    );
    answer.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// `GET /page.css`, `GET /page.js`
pub(crate) fn asset<S>(
    shared: &Shared<S>,
    kind: &'static str,
    text: &'static str,
    request: &Request<Incoming>,
    peer: SocketAddr,
    head: bool,
) -> Answer {
    refusal(shared, request, peer).unwrap_or_else(|| private(whole(kind, text, head)))
}

/// `GET /metrics`
pub(crate) async fn metrics<S: Substituter>(
    shared: &Shared<S>,
    request: &Request<Incoming>,
    peer: SocketAddr,
    head: bool,
) -> Answer {
    let refused = foreign_host(shared, request)
        .or_else(|| if shared.remote_metrics { None } else { foreign_client(shared, peer) });
    if let Some(refused) = refused {
        return refused;
    }
    let text = metrics::metrics(&status(shared).await, &shared.substituter.peers().await);
    private(whole(metrics::CONTENT_TYPE, text, head))
}

/// The status with what only the gateway knows.
async fn status<S: Substituter>(shared: &Shared<S>) -> AgentStatus {
    let mut status = shared.substituter.status().await;
    status.counters.http = shared.counters.snapshot();
    if status.http_listen.is_empty() {
        status.http_listen.extend(shared.local);
    }
    status
}

/// The page's events, until the reader goes away.
fn events<S: Substituter>(shared: &Arc<Shared<S>>) -> Answer {
    let Some(reader) = Reader::enter(&shared.readers) else {
        return error(
            StatusCode::TOO_MANY_REQUESTS,
            "too many pages are open",
            "close some, or ask /api/v1/status now and then",
        );
    };
    let state = (Arc::clone(shared), page::Seen::default(), reader, true);
    let pieces = stream::unfold(state, |(shared, mut seen, reader, first)| async move {
        if !first {
            tokio::time::sleep(EVENTS_EVERY).await;
        }
        let text = seen.events(&status(&shared).await, &shared.substituter.peers().await);
        Some((Bytes::from(text), (shared, seen, reader, false)))
    });
    let mut answer = private(Response::new(ResponseBody::events(pieces.boxed())));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

/// A place among the readers of the events, given back when dropped.
struct Reader(Arc<AtomicUsize>);

impl Reader {
    fn enter(readers: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |now: usize| (now < READERS_MAX).then_some(now + 1);
        readers.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(Arc::clone(readers)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// `GET /api/v1/...`
pub(crate) async fn answer<S: Substituter>(
    shared: &Arc<Shared<S>>,
    what: Control,
    request: &Request<Incoming>,
    peer: SocketAddr,
    head: bool,
) -> Answer {
    if let Some(refused) = refusal(shared, request, peer) {
        return refused;
    }
    let substituter = &shared.substituter;
    match what {
        Control::Status => json(StatusCode::OK, &status(shared).await, head),
        Control::Events => events(shared),
        Control::Peers => json(StatusCode::OK, &substituter.peers().await, head),
        Control::Why(Some(hash)) => json(StatusCode::OK, &substituter.why(hash).await, head),
        Control::Why(None) => error(
            StatusCode::BAD_REQUEST,
            "this is neither a store path nor a hash part",
            "give /nix/store/<hash>-<name>, <hash>-<name> or the 32 characters of <hash>",
        ),
        Control::Unknown => error(
            StatusCode::NOT_FOUND,
            "no such question",
            "there are status, peers, events and why/<store path>",
        ),
    }
}

/// Why this client may not have an answer, if so.
pub(crate) fn refusal<S>(
    shared: &Shared<S>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Option<Answer> {
    foreign_client(shared, peer).or_else(|| foreign_host(shared, request))
}

fn foreign_client<S>(shared: &Shared<S>, peer: SocketAddr) -> Option<Answer> {
    let foreign = !shared.remote_control && !peer.ip().to_canonical().is_loopback();
    foreign.then(|| {
        error(
            StatusCode::FORBIDDEN,
            "the control interface is for this machine only",
            "ask on the machine itself",
        )
    })
}

/// A page of somebody else's that had its own name point here (DNS rebinding) is told by the name it asks for.
fn foreign_host<S>(shared: &Shared<S>, request: &Request<Incoming>) -> Option<Answer> {
    // The target's own authority goes before the header (RFC 9112 §3.2.2).
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST).and_then(|value| value.to_str().ok()),
    };
    let allowed = host.is_some_and(|host| shared.hosts.allows(host));
    (!allowed).then(|| {
        error(
            StatusCode::FORBIDDEN,
            "this Host name is not one of this machine's",
            "use localhost or 127.0.0.1, or add the name to the configuration",
        )
    })
}

pub(crate) fn error<'h>(
    status: StatusCode,
    error: &str,
    hint: impl Into<Option<&'h str>>,
) -> Answer {
    let hint = hint.into().map(str::to_owned);
    json(status, &ApiError { error: error.into(), hint }, false)
}

fn json(status: StatusCode, value: &impl Serialize, head: bool) -> Answer {
    let Ok(mut text) = serde_json::to_vec(value) else {
        return not_found();
    };
    text.push(b'\n');
    let mut answer = private(whole(JSON, text, head));
    *answer.status_mut() = status;
    answer
}

/// Not for caches, frames or other sites' scripts.
fn private(mut answer: Answer) -> Answer {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
