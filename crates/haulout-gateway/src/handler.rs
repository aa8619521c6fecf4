//! From a request to its answer.
//!
//! On the routes of the substituter there are four answers: 200, 206, 416 and 404. Everything that
//! goes wrong is the last one: Nix asks its next substituter then, where it would retry for seconds
//! or fail the build after a 5xx.

use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;
use futures_util::FutureExt;
use haulout_nix::{HashPart, NarHash, NarInfo, PathInfo};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};

use crate::{
    Client, GatewayConfig, Substituter, blobs,
    body::{NarStream, ResponseBody},
    control,
    counters::Counters,
    door::Door,
    guests,
    hosts::Hosts,
    page,
    range::{self, Asked},
    route::Route,
};

/// Bytes of a refused upload that are read, so that the client sees the 405 instead of a reset
/// connection.
const REFUSED_BODY_BYTES_MAX: u64 = 1 << 20;

/// A line of `nix-cache-info` that Nix passes over and other agents understand: what this cache has
/// not, it may be asking of them.
const AGENT_LINE: &str = "HauloutAgent: 1";
/// How other agents name themselves.
const AGENT_NAME: &str = "haulout/";

pub(crate) type Answer = Response<ResponseBody>;

/// Everything the connections share.
pub(crate) struct Handler<S>(Arc<Shared<S>>);

pub(crate) struct Shared<S> {
    pub(crate) substituter: Arc<S>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hosts: Hosts,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote_control: bool,
    door: Option<Door>,
    pub(crate) remote_metrics: bool,
    /// Readers of the page's events now.
    pub(crate) readers: Arc<AtomicUsize>,
    cache_info: Bytes,
}

impl<S> Clone for Handler<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Substituter> Handler<S> {
    pub(crate) fn new(
        substituter: Arc<S>,
        config: &GatewayConfig,
        local: Option<SocketAddr>,
    ) -> Self {
        let cache_info = format!(
            "StoreDir: {}\nWantMassQuery: 1\nPriority: {}\n{AGENT_LINE}\n",
            substituter.store_dir().as_str(),
            config.priority
        );
        Self(Arc::new(Shared {
            substituter,
            counters: Arc::default(),
            hosts: Hosts::new(local, &config.host_names),
            local,
            remote_control: config.remote_control,
            door: config.door.clone(),
            remote_metrics: config.remote_metrics,
            readers: Arc::default(),
            cache_info: cache_info.into(),
        }))
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Answer one request. A panic on the way is a bug, is counted, and is a 404 to the client.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        match AssertUnwindSafe(self.0.dispatch(request, peer)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => {
                self.0.counters.panics.one();
                tracing::error!("a request handler panicked; answered 404");
                not_found()
            }
        }
    }
}

impl<S: Substituter> Shared<S> {
    async fn dispatch(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Answer {
        if let Some(door) = &self.door {
            request = match guests::receive(self, door, request).await {
                Ok(answer) => return answer,
                Err(request) => request,
            };
        }
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return refuse_method(request).await,
        };
        let route = Route::of(request.uri().path());
        let client = self.client(request.headers());
        match route {
            Route::NarInfo(hash) => self.narinfo(client, hash, head).await,
            Route::Nar(path, hash) => self.nar(client, path, hash, head, request.headers()).await,
            Route::CacheInfo => whole("text/x-nix-cache-info", self.cache_info.clone(), head),
            Route::Listing(hash) => {
                found("application/json", self.substituter.listing(hash).await, head)
            }
            // What was built here, and how, is for this machine alone.
            Route::Log(_) if control::refusal(self, &request, peer).is_some() => not_found(),
            Route::Log(name) => {
                found("text/plain; charset=utf-8", self.substituter.build_log(&name).await, head)
            }
            Route::Index => control::index(self, &request, peer, head).await,
            Route::PageStyle => control::asset(self, "text/css", page::STYLE, &request, peer, head),
            Route::PageScript => {
                control::asset(self, "text/javascript", page::SCRIPT, &request, peer, head)
            }
            Route::Metrics => control::metrics(self, &request, peer, head).await,
            Route::Control(what) => control::answer(self, what, &request, peer, head).await,
            Route::Blob(id) => blobs::blob(self, id, &request, peer, head).await,
            Route::Nothing => not_found(),
        }
    }

    /// Who asks. What a client says of itself is believed: all it can win is to get less.
    fn client(&self, headers: &HeaderMap) -> Client {
        let agent = headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok());
        match (agent, &self.door) {
            (Some(name), _) if name.starts_with(AGENT_NAME) => Client::Agent,
            (_, Some(_)) => Client::Guest,
            _ => Client::OwnNix,
        }
    }

    async fn narinfo(&self, client: Client, hash: HashPart, head: bool) -> Answer {
        let counters = &self.counters;
        counters.narinfo_asked.one();
        // The last line against a mix-up: what is not the path asked for is not an answer.
        let info = self.substituter.path_info_for(client, hash).await;
        let info = info.filter(|info| info.path.hash_part() == hash);
        let Some(info) = info else {
            counters.narinfo_miss.one();
            return not_found();
        };
        counters.narinfo_hit.one();
        // Always our own words, never a peer's text. The URL is relative and enough to find the NAR
        // again by itself.
        let text = NarInfo::raw(PathInfo::clone(&info)).to_text(self.substituter.store_dir());
        whole("text/x-nix-narinfo", text, head)
    }

    async fn nar(
        &self,
        client: Client,
        path: HashPart,
        hash: NarHash,
        head: bool,
        headers: &HeaderMap,
    ) -> Answer {
        if head {
            return match self.substituter.nar_size(path, hash).await {
                Some(size) => nar_answer(StatusCode::OK, size, ResponseBody::empty()),
                None => not_found(),
            };
        }
        self.counters.nar_asked.one();
        let answer = self.nar_body(client, path, hash, asked_range(headers)).await;
        answer.unwrap_or_else(|| {
            self.counters.nar_miss.one();
            not_found()
        })
    }

    async fn nar_body(
        &self,
        client: Client,
        path: HashPart,
        hash: NarHash,
        mut range: Option<Asked>,
    ) -> Option<Answer> {
        if let Some(asked) = range {
            match self.substituter.nar_size(path, hash).await {
                Some(size) if asked.fit(size).is_none() => {
                    return Some(range_not_satisfiable(size));
                }
                // The end of something whose size nobody knows: RFC 9110 allows to send all of it.
                None if asked.start().is_none() => range = None,
                _ => {}
            }
        }
        let size_for_last = match range {
            Some(Asked::Last(_)) => self.substituter.nar_size(path, hash).await,
            _ => None,
        };
        let from = match (range, size_for_last) {
            (Some(asked), Some(size)) => asked.fit(size)?.from,
            (Some(asked), None) => asked.start()?,
            (None, _) => 0,
        };
        let body = self.substituter.nar_for(client, path, hash, from).await?;
        let fitting = match range {
            Some(asked) => match asked.fit(body.size) {
                Some(fitting) if fitting.from == from => fitting,
                Some(_) => return None,
                None => return Some(range_not_satisfiable(body.size)),
            },
            None => range::Fitting { from: 0, len: body.size },
        };
        let open_ended = fitting.from + fitting.len < body.size;
        let mut stream =
            NarStream::new(body.stream, fitting.len, open_ended, Arc::clone(&self.counters));
        if !stream.wait_for_first_piece().await {
            return None;
        }
        Some(match range {
            None => nar_answer(StatusCode::OK, fitting.len, ResponseBody::nar(stream)),
            Some(_) => partial(fitting.from, fitting.len, body.size, ResponseBody::nar(stream)),
        })
    }
}

/// 206 with `len` bytes from `from` of something of `size` bytes; `len` is not zero.
pub(crate) fn partial(from: u64, len: u64, size: u64, body: ResponseBody) -> Answer {
    let mut answer = nar_answer(StatusCode::PARTIAL_CONTENT, len, body);
    let last = from + len - 1;
    insert(&mut answer, header::CONTENT_RANGE, &format!("bytes {from}-{last}/{size}"));
    answer
}

/// `If-Range` needs a validator we never gave, so with it the range is off (RFC 9110 §13.1.5).
pub(crate) fn asked_range(headers: &HeaderMap) -> Option<Asked> {
    if headers.contains_key(header::IF_RANGE) {
        return None;
    }
    range::parse(headers.get(header::RANGE)?.as_bytes())
}

/// 404: the only "no".
pub(crate) fn not_found() -> Answer {
    plain(StatusCode::NOT_FOUND, "not here\n")
}

fn range_not_satisfiable(size: u64) -> Answer {
    let mut answer = plain(StatusCode::RANGE_NOT_SATISFIABLE, "no such bytes\n");
    insert(&mut answer, header::CONTENT_RANGE, &format!("bytes */{size}"));
    answer
}

/// 405 for everything that would change something. A small body is read, so that the client gets to
/// see the answer.
async fn refuse_method(request: Request<Incoming>) -> Answer {
    if !request.headers().contains_key(header::EXPECT) {
        let mut body = request.into_body();
        let mut read = 0;
        while let Some(Ok(frame)) = http_body_util::BodyExt::frame(&mut body).await {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > REFUSED_BODY_BYTES_MAX {
                break;
            }
        }
    }
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "read only\n");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

pub(crate) fn nar_answer(status: StatusCode, len: u64, body: ResponseBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-nix-nar"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer
}

fn found(content_type: &'static str, bytes: Option<Bytes>, head: bool) -> Answer {
    bytes.map_or_else(not_found, |bytes| whole(content_type, bytes, head))
}

/// 200 with all of `bytes`, or for HEAD only their length.
pub(crate) fn whole(content_type: &'static str, bytes: impl Into<Bytes>, head: bool) -> Answer {
    let bytes = bytes.into();
    let len = bytes.len();
    let mut answer =
        Response::new(if head { ResponseBody::empty() } else { ResponseBody::whole(bytes) });
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    answer
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = whole("text/plain", Bytes::from_static(text.as_bytes()), false);
    *answer.status_mut() = status;
    answer
}

/// Add a header made of visible ASCII.
pub(crate) fn insert(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
