//! The control interface under `/api/v1/` and the page at `/`.
//!
//! Unlike Nix' own routes it tells what this machine is doing, so it answers only to clients on
//! this machine (unless configured) that address it by one of its own names (see [`crate::hosts`]).

use std::net::SocketAddr;

use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use crate::{
    Substituter,
    api::ApiError,
    handler::{Answer, Shared, not_found, whole},
    route::Control,
};

const JSON: &str = "application/json";

/// The page at `/`.
const INDEX: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>haulout</title>
<h1>haulout</h1>
<p>This is the haulout agent of this machine: a Nix substituter that asks the other machines on the local network first.</p>
<p><a href=\"/api/v1/status\">status</a> · <a href=\"/api/v1/peers\">peers</a> · <a href=\"/nix-cache-info\">nix-cache-info</a></p>
</html>
";

/// `GET /`
pub(crate) fn index<S>(
    shared: &Shared<S>,
    request: &Request<Incoming>,
    peer: SocketAddr,
    head: bool,
) -> Answer {
    match refusal(shared, request, peer) {
        Some(refused) => refused,
        None => private(whole("text/html; charset=utf-8", INDEX, head)),
    }
}

/// `GET /api/v1/...`
pub(crate) async fn answer<S: Substituter>(
    shared: &Shared<S>,
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
        Control::Status => {
            let mut status = substituter.status().await;
            status.counters.http = shared.counters.snapshot();
            if status.http_listen.is_empty() {
                status.http_listen.extend(shared.local);
            }
            json(StatusCode::OK, &status, head)
        }
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
            "there are status, peers and why/<store path>",
        ),
    }
}

/// Why this client may not have an answer, if so.
pub(crate) fn refusal<S>(
    shared: &Shared<S>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Option<Answer> {
    if !shared.remote_control && !peer.ip().to_canonical().is_loopback() {
        return Some(error(
            StatusCode::FORBIDDEN,
            "the control interface is for this machine only",
            "ask on the machine itself",
        ));
    }
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

fn error(status: StatusCode, error: &str, hint: &str) -> Answer {
    json(status, &ApiError { error: error.into(), hint: Some(hint.into()) }, false)
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
