//! Reading through the running agent, so that slivers come from neighbours before they come from outside.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use haulout_gateway::api::{AgentStatus, ApiError};
use haulout_resolver::site::walrus::network_id;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use indicatif::ProgressBar;
use redstuff::BlobId;
use tokio::time::timeout;

use super::network::Network;
use crate::client::Client;
use crate::control::{ask, resolve};
use crate::error::{Context, Failure, Outcome};

/// How long the agent on this machine is waited for before it is done without.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The agent at this address, if one runs there and reads from this very network.
pub(super) async fn find(address: &str, network: &Network) -> Option<SocketAddr> {
    let address = resolve(address).ok()?;
    let (status, _) = timeout(PATIENCE, ask::<AgentStatus>(address, "status")).await.ok()?.ok()?;
    let id: String =
        network_id(&network.identity).iter().map(|byte| format!("{byte:02x}")).collect();
    (status.walrus?.id == id).then_some(address)
}

/// A blob's length in bytes.
pub(super) async fn length(agent: SocketAddr, blob: &BlobId) -> Outcome<u64> {
    let path = format!("/v1/blobs/{blob}");
    let response = Client::connect(agent).await?.open(Method::HEAD, &path, None).await?;
    let length = response.headers().get("content-length").and_then(|value| value.to_str().ok());
    match (response.status(), length.and_then(|text| text.parse().ok())) {
        (StatusCode::OK, Some(length)) => Ok(length),
        // An answer to HEAD has no body that would say why.
        _ => {
            let response = Client::connect(agent).await?.open(Method::GET, &path, None).await?;
            Err(refused(agent, response).await)
        }
    }
}

/// What the agent said instead of the blob.
async fn refused(agent: SocketAddr, response: Response<Incoming>) -> Failure {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ERROR_BYTES_MAX);
    let said = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let told: ApiError = serde_json::from_slice(&said).unwrap_or_default();
    let failure = Failure::new("the blob cannot be read")
        .because(Failure::new(format!("the agent at {agent} says ({status}): {}", told.error)));
    let failure = told.hint.into_iter().fold(failure, Failure::hint);
    failure.hint("--direct reads from the storage nodes without the agent")
}

/// The bytes `range` (all by default) of a blob from the agent; `bar` is told of them.
pub(super) async fn read(
    agent: SocketAddr,
    blob: &BlobId,
    range: Option<&Range<u64>>,
    bar: &ProgressBar,
) -> Outcome<Vec<u8>> {
    // An empty range has no form in HTTP.
    if range.is_some_and(|range| range.is_empty()) {
        return Ok(Vec::new());
    }
    let asking = || format!("cannot read from the agent at {agent}");
    let mut client = Client::connect(agent).await?;
    let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
    let response =
        client.open(Method::GET, &format!("/v1/blobs/{blob}"), header.as_deref()).await?;
    if !matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(refused(agent, response).await);
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context(asking)?.into_data() else { continue };
        bar.inc(data.len() as u64);
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
