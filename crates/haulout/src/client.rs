//! A small HTTP/1.1 client for agents on this machine: one connection, kept alive.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::{Context, Failure, Outcome};

/// Reaching an agent on this machine takes microseconds, or does not work.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to one agent.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Client {
    /// Connects to the agent at `address`.
    pub(crate) async fn connect(address: SocketAddr) -> Outcome<Self> {
        let refused = || {
            Failure::new(format!("no agent answers at {address}"))
                .hint("start one with `haulout up`, or name its address with --agent ADDR:PORT")
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| refused())?
            .map_err(|error| refused().because(error))?;
        // Without it every small request would wait for an acknowledgement.
        stream.set_nodelay(true).context(|| "cannot set TCP_NODELAY".to_owned())?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .context(|| format!("{address} does not speak HTTP"))?;
        tokio::spawn(connection);
        Ok(Self { sender, address })
    }

    /// Asks for `path`; the body may have at most `limit` bytes.
    pub(crate) async fn get(&mut self, path: &str, limit: usize) -> Outcome<(StatusCode, Bytes)> {
        self.send(&Method::GET, path, Vec::new(), limit).await
    }

    /// Asks for `path`, or a range of it, and leaves the body to be read as it comes.
    pub(crate) async fn open(
        &mut self,
        method: Method,
        path: &str,
        range: Option<&str>,
    ) -> Outcome<Response<Incoming>> {
        let asking = || format!("http://{}{path}", self.address);
        let mut request =
            Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let request =
            request.body(Full::default()).context(|| format!("cannot ask for {path:?}"))?;
        self.sender.ready().await.context(asking)?;
        self.sender.send_request(request).await.context(asking)
    }

    /// Sends a request with a body; that of the answer may have at most `limit` bytes.
    pub(crate) async fn send(
        &mut self,
        method: &Method,
        path: &str,
        body: Vec<u8>,
        limit: usize,
    ) -> Outcome<(StatusCode, Bytes)> {
        let asking = || format!("http://{}{path}", self.address);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .body(Full::from(body))
            .context(|| format!("cannot ask for {path:?}"))?;
        self.sender.ready().await.context(asking)?;
        let response = self.sender.send_request(request).await.context(asking)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await.map_err(|error| {
            Failure::new(format!("the answer to {} broke off: {error}", asking()))
        })?;
        Ok((status, body.to_bytes()))
    }
}
