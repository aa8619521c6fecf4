//! `GET /v1/blobs/<blob id>`: blobs of a Walrus network, in the way in which Walrus' own aggregators give them.
//!
//! For programs on this machine only, like the control interface: a blob is public, but fetching it is work for this machine
//! and its neighbours. Unlike on the substituter's routes an error has a status of its own; nobody here is Nix.

use std::{fmt, net::SocketAddr, ops::Range};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};

use crate::{
    Cut, Substituter,
    body::ResponseBody,
    control,
    handler::{Answer, Shared, asked_range, insert},
    range::Fitting,
};

/// Bytes of a blob from one offset to another, in pieces of any size. An `Err` or an early end cuts the connection.
pub type BlobStream = BoxStream<'static, Result<Bytes, Cut>>;

/// Opens a part of a blob; answers when its first bytes are about to come.
type Open = Box<dyn FnOnce(Range<u64>) -> BoxFuture<'static, Result<BlobStream, BlobError>> + Send>;

/// A blob that exists, and a way to read it.
pub struct BlobBody {
    size: u64,
    open: Open,
}

impl BlobBody {
    /// A blob of `size` bytes that `open` reads.
    pub fn new(
        size: u64,
        open: impl FnOnce(Range<u64>) -> BoxFuture<'static, Result<BlobStream, BlobError>>
        + Send
        + 'static,
    ) -> Self {
        Self { size, open: Box::new(open) }
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Why a blob is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobError {
    /// What kind of reason.
    pub kind: BlobErrorKind,
    /// It, in words.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What kind of reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobErrorKind {
    /// This agent reads from no Walrus network.
    NoNetwork,
    /// The network does not have the blob.
    NotFound,
    /// The storage nodes must not give it.
    Forbidden,
    /// Whoever stored it did so wrongly.
    Inconsistent,
    /// It cannot be had at the moment.
    Unavailable,
}

impl BlobError {
    /// That there is no network.
    pub fn no_network() -> Self {
        Self {
            kind: BlobErrorKind::NoNetwork,
            text: "this agent reads from no Walrus network".to_owned(),
            hint: Some("name one: `network` in [walrus] of the settings".to_owned()),
        }
    }

    fn status(&self) -> StatusCode {
        match self.kind {
            BlobErrorKind::NoNetwork | BlobErrorKind::NotFound => StatusCode::NOT_FOUND,
            BlobErrorKind::Forbidden => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
            BlobErrorKind::Inconsistent => StatusCode::BAD_GATEWAY,
            BlobErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn answer(&self) -> Answer {
        control::error(self.status(), &self.text, self.hint.as_deref())
    }
}

/// `GET` and `HEAD /v1/blobs/<blob id>`
pub(crate) async fn blob<S: Substituter>(
    shared: &Shared<S>,
    id: [u8; 32],
    request: &Request<Incoming>,
    peer: SocketAddr,
    head: bool,
) -> Answer {
    if let Some(refused) = control::refusal(shared, request, peer) {
        return refused;
    }
    let body = match shared.substituter.blob(id).await {
        Ok(body) => body,
        Err(error) => return error.answer(),
    };
    let mut answer = match give(body, request.headers(), head).await {
        Ok(answer) => answer,
        Err(error) => return error.answer(),
    };
    // A blob's id says what is in it.
    insert(
        &mut answer,
        header::ETAG,
        &format!("\"{}\"", data_encoding::BASE64URL_NOPAD.encode(&id)),
    );
    answer
}

async fn give(body: BlobBody, headers: &HeaderMap, head: bool) -> Result<Answer, BlobError> {
    let size = body.size;
    let asked = asked_range(headers).filter(|_| !head);
    let part = match asked {
        None => Fitting { from: 0, len: size },
        Some(asked) => match asked.fit(size) {
            Some(part) => part,
            None => return Ok(beyond(size)),
        },
    };
    let mut answer = Response::new(if head || part.len == 0 {
        ResponseBody::empty()
    } else {
        ResponseBody::exact(first_piece(body, &part).await?, part.len)
    });
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(part.len));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=86400, immutable"),
    );
    if asked.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = part.from + part.len - 1;
        insert(&mut answer, header::CONTENT_RANGE, &format!("bytes {}-{last}/{size}", part.from));
    }
    Ok(answer)
}

/// Waits for the first bytes: until then a failure can still be said.
async fn first_piece(body: BlobBody, part: &Fitting) -> Result<BlobStream, BlobError> {
    let mut pieces = (body.open)(part.from..part.from + part.len).await?;
    match pieces.next().await {
        Some(Ok(first)) => Ok(stream::once(async { Ok(first) }).chain(pieces).boxed()),
        Some(Err(cut)) => Err(BlobError {
            kind: BlobErrorKind::Unavailable,
            text: cut.reason,
            hint: Some("try again; `haulout status` shows the network's state".to_owned()),
        }),
        None => Ok(pieces),
    }
}

fn beyond(size: u64) -> Answer {
    let text = format!("the blob has {size} bytes");
    let mut answer = control::error(StatusCode::RANGE_NOT_SATISFIABLE, &text, None);
    insert(&mut answer, header::CONTENT_RANGE, &format!("bytes */{size}"));
    answer
}

/// The blob that a path below `v1/blobs/` names: 43 characters of base64url.
pub(crate) fn parse_id(text: &str) -> Option<[u8; 32]> {
    let mut id = [0; 32];
    if text.len() != 43 {
        return None;
    }
    let length = data_encoding::BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut id).ok()?;
    (length == id.len()).then_some(id)
}
