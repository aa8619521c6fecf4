//! The HTTP client: connections that are kept, TLS, proxies of the environment, redirects within
//! rules. What a status means is not its business.

mod connect;
mod fields;
pub(crate) mod netrc;
mod proxy;
mod redirect;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::{self, Client as Pool};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::Trouble;
use connect::{Connector, PublicOnly};
pub(crate) use fields::{lifetime, retry_after};
pub use proxy::Proxies;

/// What requests carry as their body.
pub(crate) type Payload = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// How long a connection may take to be made.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Most redirects followed for one request. Caches that use object storage need one.
const REDIRECTS_MAX: usize = 4;
/// Most header lines of a response, and most bytes of them.
const HEADER_LINES_MAX: usize = 64;
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// What may be read ahead of an HTTP/1 body, bytes; bounds the header too.
const READ_BUFFER_BYTES: usize = 128 * 1024;
/// Idle connections kept to one host, and for how long: HTTP/1 caches are asked for up to
/// [`crate::QUESTIONS_MAX`] narinfos at once.
const IDLE_MAX: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(60);
/// HTTP/2 windows, bytes: 1 Gbit/s over 30 ms for one stream.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A connection that has open requests and is silent for this long is asked whether it is alive.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(5);

const USER_AGENT: &str = concat!("haulout/", env!("CARGO_PKG_VERSION"));

/// Sends requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// To the hosts that the configuration names, wherever they are.
    named: Pool<hyper_rustls::HttpsConnector<Connector>, Payload>,
    /// To hosts that others name: public addresses only.
    public: Pool<hyper_rustls::HttpsConnector<PublicOnly>, Payload>,
    may_visit: fn(IpAddr) -> bool,
    proxies: Proxies,
}

impl Client {
    /// A client with these TLS settings (no ALPN set). `may_visit` says which addresses redirects
    /// may lead to: [`redirect::is_public`], except in tests.
    pub(crate) fn new(
        tls: rustls::ClientConfig,
        may_visit: fn(IpAddr) -> bool,
        proxies: Proxies,
    ) -> Self {
        let tls_for_public = tls.clone();
        let named = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connect::named(proxies.clone()));
        let public = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_for_public)
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connect::public_only(may_visit, proxies.clone()));
        Self { named: builder().build(named), public: builder().build(public), may_visit, proxies }
    }

    /// GETs `url` with these header fields, following redirects. `authorization` goes to the
    /// host that `url` names and to no other.
    ///
    /// # Errors
    /// No answer, or a redirect that breaks a rule. Every status is an answer.
    pub(crate) async fn get(
        &self,
        url: Uri,
        fields: HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Trouble> {
        let (mut at, mut public) = (url, false);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(empty());
            *request.uri_mut() = at.clone();
            *request.headers_mut() = fields.clone();
            if let Some(value) = authorization.filter(|_| !public) {
                request.headers_mut().insert(header::AUTHORIZATION, value.clone());
            }
            let response = self.send(request, public).await?;
            let Some(target) = redirect::target(&response) else { return Ok(response) };
            let hop = redirect::check(&at, &target, self.may_visit)?;
            public |= hop.leaves_host;
            at = hop.to;
        }
        Err(Trouble::Redirect { to: shown(&at), why: "too many redirects" })
    }

    /// Sends any request, following nothing.
    pub(crate) async fn send(
        &self,
        mut request: Request<Payload>,
        public: bool,
    ) -> Result<Response<Incoming>, Trouble> {
        let login = self.proxies.login(request.uri());
        let fields = request.headers_mut();
        fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(login) = login {
            fields.insert(header::PROXY_AUTHORIZATION, login);
        }
        let sent = if public { self.public.request(request) } else { self.named.request(request) };
        sent.await.map_err(|error| trouble(&error))
    }
}

fn builder() -> legacy::Builder {
    let mut builder = Pool::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_MAX)
        .http1_max_headers(HEADER_LINES_MAX)
        .http1_max_buf_size(READ_BUFFER_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_MAX);
    builder
}

/// A body without bytes.
pub(crate) fn empty() -> Payload {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A URL for messages: no query, which may hold a signature.
pub(crate) fn shown(url: &Uri) -> String {
    format!("{}://{}{}", url.scheme_str().unwrap_or(""), url.host().unwrap_or(""), url.path())
}

/// The innermost cause is the one that helps.
fn trouble(error: &legacy::Error) -> Trouble {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    if error.is_connect() { Trouble::Unreachable(text) } else { Trouble::Broken(text) }
}

/// What the machine trusts for TLS: `NIX_SSL_CERT_FILE` and `SSL_CERT_FILE` as Nix does, else the
/// system's store.
///
/// # Errors
/// When there are no certificates at all: then every https cache is out of reach.
pub fn system_tls() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let file = std::env::var_os("NIX_SSL_CERT_FILE").filter(|file| !file.is_empty());
    let found = match file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file.as_ref()), None),
        None => rustls_native_certs::load_native_certs(),
    };
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(format!("this machine has no certificates to check https caches with{why}"));
    }
    tls_with(roots)
}

/// TLS settings that trust these roots.
///
/// # Errors
/// Never in practice: the provider knows the default versions.
pub fn tls_with(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) use redirect::is_public;
