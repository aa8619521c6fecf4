//! Aggregators: the last resort. What they answer is encoded again and must have the blob id.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use redstuff::{BlobId, ShardCount};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    Client,
    http::{HttpError, read_answer},
    limits::{CONNECT_TIMEOUT, RATE_MIN, REQUEST_TIMEOUT},
    tls,
};

/// An aggregator's address, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Base<'a> {
    secure: bool,
    host: &'a str,
    port: u16,
    prefix: &'a str,
}

impl Base<'_> {
    /// What goes into the `Host` field: the usual port is not named, as there are fronts that know themselves without it only.
    fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_owned(),
        };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// Whether a text is the base URL of an aggregator: `http` or `https`, host, perhaps port and path.
#[must_use]
pub fn is_base_url(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(url: &str) -> Option<Base<'_>> {
    let (secure, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://")?),
    };
    let (authority, prefix) = match rest.find('/') {
        Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
        None => (rest, ""),
    };
    let visible = url.bytes().all(|c| c.is_ascii_graphic());
    if !visible || authority.contains('@') || prefix.contains(['?', '#']) {
        return None;
    }
    let default = if secure { 443 } else { 80 };
    let (host, port) = match crate::committee::split_address(authority) {
        Some(found) => found,
        None if !authority.is_empty() && !authority.contains([':', '[']) => (authority, default),
        None => return None,
    };
    Some(Base { secure, host, port, prefix })
}

impl Client {
    /// The blob from the first aggregator that has it, verified, and which one that was.
    pub(crate) async fn ask_aggregators(
        &self,
        n: ShardCount,
        blob: &BlobId,
        max_bytes: u64,
    ) -> Option<(Vec<u8>, String)> {
        let limit = usize::try_from(max_bytes.min(n.max_blob_size())).unwrap_or(usize::MAX);
        for base in self.aggregators.iter() {
            match fetch(base, blob, limit).await {
                Ok(bytes) => {
                    let (expected, copy) = (*blob, bytes.clone());
                    let id = tokio::task::spawn_blocking(move || n.blob_id(&copy)).await;
                    if matches!(id, Ok(Ok(id)) if id == expected) {
                        return Some((bytes.to_vec(), base.clone()));
                    }
                    tracing::warn!(%base, "an aggregator sent something else than the blob");
                }
                Err(error) => tracing::debug!(%base, %error, "an aggregator does not serve"),
            }
        }
        None
    }
}

async fn fetch(base: &str, blob: &BlobId, limit: usize) -> Result<Bytes, HttpError> {
    let bad = |what: &str| HttpError::Dial(what.into());
    let base = parse(base).ok_or_else(|| bad("not an http(s) URL"))?;
    let path = format!("{}/v1/blobs/{blob}", base.prefix);
    let patience = REQUEST_TIMEOUT * 4 + std::time::Duration::from_secs(limit as u64 / RATE_MIN);
    let exchange = async {
        let connecting = TcpStream::connect((base.host, base.port));
        let stream = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| HttpError::Timeout("connecting"))?
            .map_err(|error| bad(&error.to_string()))?;
        if !base.secure {
            return get(stream, &base, &path, limit).await;
        }
        let failed = |error: &dyn ToString| HttpError::Tls(error.to_string().into());
        let config = tls::system().map_err(|error| failed(&error))?;
        let name = ServerName::try_from(base.host.to_owned()).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = timeout(CONNECT_TIMEOUT, connector.connect(name, stream))
            .await
            .map_err(|_| HttpError::Timeout("connecting"))?
            .map_err(|error| failed(&error))?;
        get(stream, &base, &path, limit).await
    };
    timeout(patience, exchange).await.map_err(|_| HttpError::Timeout("the whole request"))?
}

async fn get<S>(stream: S, base: &Base<'_>, path: &str, limit: usize) -> Result<Bytes, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = |error: &dyn ToString| HttpError::Cut(error.to_string().into());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| cut(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, base.authority())
        .body(Empty::<Bytes>::new())
        .map_err(|error| cut(&error))?;
    // An aggregator reads the blob before it answers, so it may be silent for long.
    let response = timeout(REQUEST_TIMEOUT * 4, sender.send_request(request)).await;
    let response: hyper::Response<Incoming> =
        response.map_err(|_| HttpError::Timeout("the answer"))?.map_err(|error| cut(&error))?;
    let answer = read_answer(response, limit).await;
    driver.abort();
    let answer = answer?;
    match answer.status.is_success() {
        true => Ok(answer.body),
        false => Err(HttpError::Cut(format!("HTTP {}", answer.status).into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn base_urls_are_taken_apart() {
        let base = parse("https://aggregator.example").unwrap();
        assert_eq!(
            (base.secure, base.host, base.port, base.prefix),
            (true, "aggregator.example", 443, "")
        );
        let base = parse("http://127.0.0.1:31415/walrus/").unwrap();
        assert_eq!((base.secure, base.port, base.prefix), (false, 31415, "/walrus"));
        let authority = |url| parse(url).unwrap().authority();
        assert_eq!(authority("https://a.example"), "a.example");
        assert_eq!(authority("https://a.example:80"), "a.example:80");
        assert_eq!(authority("http://[::1]:31415"), "[::1]:31415");
        for bad in
            ["", "ftp://x", "https://", "https://a@b", "https://a b", "https://x/?y", "https://a:b"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
