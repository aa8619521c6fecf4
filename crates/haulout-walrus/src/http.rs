//! HTTP/2 to one storage node: one connection, dialled when needed, and answers with limits.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    limits::{
        CONNECT_TIMEOUT, CONNECTION_WINDOW, DIAL_PAUSE, ERROR_BODY_MAX, HEADER_BYTES_MAX, PING,
        RATE_MIN, REQUEST_TIMEOUT, SILENCE_MAX, STREAM_WINDOW,
    },
    tls,
};

/// The content type of BCS bodies.
pub(crate) const BINARY: &str = "application/octet-stream";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The node cannot be reached.
    #[error("cannot connect: {0}")]
    Dial(Arc<str>),
    /// Somebody answers who does not have the node's key, or does not speak TLS or HTTP/2.
    #[error("TLS failed: {0}")]
    Tls(Arc<str>),
    /// The connection ended or broke the protocol.
    #[error("the connection failed: {0}")]
    Cut(Arc<str>),
    /// Nothing came for too long, or too little.
    #[error("no answer in time ({0})")]
    Timeout(&'static str),
    /// The answer is larger than any right one.
    #[error("the answer is larger than {limit} bytes")]
    Oversize {
        /// The limit in bytes.
        limit: usize,
    },
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A missing content type counts as binary.
    pub(crate) fn is_binary(&self) -> bool {
        self.content_type.as_deref().is_none_or(|kind| kind.starts_with(BINARY))
    }
}

/// A request, and how large a right answer can be.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) body: Option<Bytes>,
    pub(crate) answer_max: usize,
}

type Sender = SendRequest<Full<Bytes>>;

/// The connection to a node.
#[derive(Debug)]
pub(crate) struct Link {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed,
    Open(Sender),
    Failed(HttpError, Instant),
}

impl Link {
    pub(crate) fn new(host: &str, port: u16, key: &[u8]) -> Result<Self, HttpError> {
        let bad = |error: &dyn ToString| HttpError::Tls(error.to_string().into());
        let config = tls::pinned(key).map_err(|error| bad(&error))?;
        Ok(Self {
            host: host.to_owned(),
            port,
            name: ServerName::try_from(host.to_owned()).map_err(|error| bad(&error))?,
            tls: Arc::new(config),
            state: Mutex::new(State::Closed),
        })
    }

    /// A connection that is open, or was a moment ago. Those who need one wait for the same dial.
    async fn sender(&self) -> Result<Sender, HttpError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(sender) if !sender.is_closed() => return Ok(sender.clone()),
            State::Failed(error, at) if at.elapsed() < DIAL_PAUSE => return Err(error.clone()),
            _ => {}
        }
        let dialled = match timeout(CONNECT_TIMEOUT, self.dial()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(HttpError::Timeout("connecting")),
        };
        *state = match &dialled {
            Ok(sender) => State::Open(sender.clone()),
            Err(error) => State::Failed(error.clone(), Instant::now()),
        };
        dialled
    }

    async fn dial(&self) -> Result<Sender, HttpError> {
        let dial = |error: io::Error| HttpError::Dial(error.to_string().into());
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(dial)?;
        stream.set_nodelay(true).map_err(dial)?;
        let failed = |error: &dyn ToString| HttpError::Tls(error.to_string().into());
        let connecting = TlsConnector::from(self.tls.clone()).connect(self.name.clone(), stream);
        let stream = connecting.await.map_err(|error| failed(&error))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a storage node's connection ended");
            }
        });
        Ok(sender)
    }

    /// Sends a request and reads the answer. Dropping the future cancels the request at the node.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, HttpError> {
        let sent = ask.body.as_ref().map_or(0, Bytes::len);
        let limit = patience(sent.max(ask.answer_max));
        match timeout(limit, self.exchange(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout("the whole request")),
        }
    }

    /// Sends a request and leaves the body of a success to be read as it comes.
    pub(crate) async fn open(&self, ask: Ask<'_>) -> Result<Opened, HttpError> {
        let (most, limit) = (ask.answer_max, patience(ask.answer_max));
        let until = tokio::time::Instant::now() + limit;
        let late = |_| HttpError::Timeout("the whole request");
        let response = timeout(limit, self.send(ask)).await.map_err(late)??;
        if !response.status().is_success() {
            return Ok(Opened::Refused(read_answer(response, most).await?));
        }
        let announced = announced(response.headers());
        if announced.is_some_and(|length| length > most as u64) {
            return Err(HttpError::Oversize { limit: most });
        }
        let arriving = Arriving { body: response.into_body(), most, read: 0, announced, until };
        Ok(Opened::Success(arriving))
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, HttpError> {
        let answer_max = ask.answer_max;
        read_answer(self.send(ask).await?, answer_max).await
    }

    async fn send(&self, ask: Ask<'_>) -> Result<Response<Incoming>, HttpError> {
        let mut sender = self.sender().await?;
        let cut = |error: &dyn ToString| HttpError::Cut(error.to_string().into());
        let uri = format!("https://{}{}", self.authority(), ask.path);
        let mut request = Request::builder().method(ask.method).uri(uri);
        let uploading = ask.body.is_some();
        if uploading {
            request = request.header(CONTENT_TYPE, BINARY);
        }
        let request =
            request.body(Full::new(ask.body.unwrap_or_default())).map_err(|error| cut(&error))?;
        let answering = sender.send_request(request);
        // An upload is silent until it is through; its patience depends on its size.
        let response = if uploading {
            answering.await
        } else {
            timeout(SILENCE_MAX, answering).await.map_err(|_| HttpError::Timeout("the answer"))?
        };
        response.map_err(|error| cut(&error))
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// An answer of which only the head has been read, if it is a success.
#[derive(Debug)]
pub(crate) enum Opened {
    Success(Arriving),
    Refused(Answer),
}

/// A body as it arrives.
#[derive(Debug)]
pub(crate) struct Arriving {
    body: Incoming,
    /// Most bytes it may have.
    most: usize,
    read: usize,
    announced: Option<u64>,
    until: tokio::time::Instant,
}

impl Arriving {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let until = self.until.min(tokio::time::Instant::now() + SILENCE_MAX);
            let frame = tokio::time::timeout_at(until, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| HttpError::Timeout("more of the answer"))? else {
                if self.announced.is_some_and(|length| length != self.read as u64) {
                    return Err(HttpError::Cut("the answer ended early".into()));
                }
                return Ok(None);
            };
            let frame = frame.map_err(|error| HttpError::Cut(error.to_string().into()))?;
            let Ok(data) = frame.into_data() else { continue };
            self.read += data.len();
            if self.read > self.most {
                return Err(HttpError::Oversize { limit: self.most });
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

/// The length that the headers announce.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How long a request with this many bytes of body may take.
fn patience(bytes: usize) -> Duration {
    REQUEST_TIMEOUT + Duration::from_secs(bytes as u64 / RATE_MIN)
}

/// Reads an answer that may have `limit` bytes if it is a success, and few otherwise.
pub(crate) async fn read_answer(
    response: Response<Incoming>,
    limit: usize,
) -> Result<Answer, HttpError> {
    let (head, body) = response.into_parts();
    let text = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let mut answer = Answer {
        status: head.status,
        content_type: text(&head.headers, CONTENT_TYPE),
        retry_after: text(&head.headers, RETRY_AFTER)
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs),
        body: Bytes::new(),
    };
    let announced = announced(&head.headers);
    if head.status.is_success() {
        answer.body = read_body(body, limit, announced).await?;
    } else {
        // What an error says beyond the limit is nobody's business; its status is enough.
        answer.body = read_body(body, ERROR_BODY_MAX, announced).await.unwrap_or_default();
    }
    Ok(answer)
}

async fn read_body(
    mut body: Incoming,
    limit: usize,
    announced: Option<u64>,
) -> Result<Bytes, HttpError> {
    let oversize = HttpError::Oversize { limit };
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(oversize);
    }
    let mut whole = BytesMut::new();
    loop {
        let frame = timeout(SILENCE_MAX, body.frame());
        let frame = frame.await.map_err(|_| HttpError::Timeout("more of the answer"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| HttpError::Cut(error.to_string().into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(oversize);
        }
        if whole.is_empty() {
            // One allocation of the right size for honest answers.
            let expected = announced.and_then(|length| usize::try_from(length).ok());
            whole.reserve(expected.unwrap_or(data.len()).min(limit));
        }
        whole.extend_from_slice(&data);
    }
    if announced.is_some_and(|length| length != whole.len() as u64) {
        return Err(HttpError::Cut("the answer ended early".into()));
    }
    Ok(whole.freeze())
}
