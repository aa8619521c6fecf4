//! What several tests need: a signed path, and servers that behave or do not.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use haulout_nix::{Compression, HashPart, KeySet, NarHash, NarInfo, PathInfo, SecretKey, StoreDir};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::http::{Client, Proxies, is_public, tls_with};
use crate::{Answer, FileLocation, Found, Options, UpstreamId, Upstreams};

/// Longer than anything takes that ends by itself.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

pub(crate) fn client() -> Client {
    Client::new(tls_with(rustls::RootCertStore::empty()).unwrap(), is_public, Proxies::default())
}

/// A path with contents, signed.
pub(crate) struct Path {
    pub(crate) nar: Vec<u8>,
    pub(crate) info: PathInfo,
}

pub(crate) fn key() -> SecretKey {
    SecretKey::from_seed("test-1", [9; 32]).unwrap()
}

impl Path {
    /// Path number `n` with `size` bytes of contents that compress by about half.
    pub(crate) fn new(n: u8, size: usize) -> Self {
        let mut state = u64::from(n) + 1;
        let nar: Vec<u8> = (0..size)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if i % 2 == 0 { (state >> 33) as u8 } else { n }
            })
            .collect();
        let hash = HashPart::from_bytes([n; 20]);
        let mut info = PathInfo {
            path: format!("{hash}-path-{n}").parse().unwrap(),
            nar_hash: NarHash::of(&nar),
            nar_size: size as u64,
            references: Vec::new(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        info.signatures = vec![info.sign(&StoreDir::default(), &key())];
        Self { nar, info }
    }

    pub(crate) fn hash(&self) -> HashPart {
        self.info.path.hash_part()
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}.narinfo", self.hash())
    }

    pub(crate) fn narinfo_at(&self, url: &str, compression: Compression) -> String {
        let mut narinfo = NarInfo::raw(self.info.clone());
        narinfo.url = url.to_owned();
        narinfo.compression = compression;
        narinfo.file_size = None;
        narinfo.to_text(&StoreDir::default())
    }

    pub(crate) fn narinfo(&self) -> String {
        self.narinfo_at(&format!("nar/{}.nar", self.hash()), Compression::None)
    }
}

/// Believes signatures of [`key`].
pub(crate) fn options() -> Options {
    let keys: KeySet = [key().public_key().clone()].into_iter().collect();
    let mut options = Options::new(StoreDir::default(), move |info| {
        let dir = StoreDir::default();
        info.verified_by(&dir, &keys).map(|_| ()).ok_or_else(|| "no good signature".to_owned())
    });
    options.netrc = None;
    options.tls = Some(tls_with(rustls::RootCertStore::empty()).unwrap());
    options.redirects_to = Some(|ip: IpAddr| ip.is_loopback());
    options.proxies = Some(Proxies::default());
    options.aws = Some(crate::store::s3::Environment::default());
    options
}

pub(crate) fn upstreams(urls: &[&str]) -> Upstreams {
    with(options(), urls)
}

pub(crate) fn with(options: Options, urls: &[&str]) -> Upstreams {
    let upstreams = Upstreams::new(options);
    for url in urls {
        upstreams.add(&url.parse().unwrap()).unwrap();
    }
    upstreams
}

pub(crate) fn expect_found(answer: Answer) -> Arc<Found> {
    match answer {
        Answer::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn found() -> Arc<Found> {
    let narinfo = NarInfo::raw(Path::new(1, 1).info);
    let upstream = UpstreamId("http://x".into());
    let file = FileLocation {
        upstream,
        key: "nar/x".into(),
        compression: narinfo.compression.clone(),
        stated_size: None,
        size_max: 1,
    };
    Arc::new(Found { narinfo, file })
}

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Handler = dyn Fn(Request<Incoming>) -> Response<Body> + Send + Sync;

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn answer(status: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(body(bytes)).unwrap()
}

/// A real HTTP server (1.1, and 2 over TLS) with a handler.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Method, path and version of each request.
    pub(crate) seen: Arc<Mutex<Vec<(String, Version)>>>,
    certificate: Option<rustls::pki_types::CertificateDer<'static>>,
}

impl Server {
    pub(crate) async fn plain(
        handler: impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, Arc::new(handler)).await
    }

    pub(crate) async fn tls(
        handler: impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(
            ["localhost", "127.0.0.1", "cache.test"].map(String::from),
        )
        .unwrap();
        let certificate = made.cert.der().clone();
        let secret =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], secret)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::start(Some((config, certificate)), Arc::new(handler)).await
    }

    async fn start(
        tls: Option<(rustls::ServerConfig, rustls::pki_types::CertificateDer<'static>)>,
        handler: Arc<Handler>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, certificate) = tls.unzip();
        let acceptor = config.map(|config| TlsAcceptor::from(Arc::new(config)));
        let server =
            Self { address, connections: Arc::default(), seen: Arc::default(), certificate };
        let (connections, seen) = (Arc::clone(&server.connections), Arc::clone(&server.seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, SeqCst);
                let (acceptor, handler, seen) =
                    (acceptor.clone(), Arc::clone(&handler), Arc::clone(&seen));
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let line = format!("{} {}", request.method(), request.uri().path());
                        seen.lock().unwrap().push((line, request.version()));
                        let response = handler(request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = match acceptor {
                        None => builder.serve_connection(TokioIo::new(stream), service).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => {
                                builder.serve_connection(TokioIo::new(stream), service).await
                            }
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        server
    }

    pub(crate) fn certificate(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.certificate.clone().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.address.port())
    }

    /// Options that trust this server's certificate.
    pub(crate) fn options(&self) -> Options {
        let mut roots = rustls::RootCertStore::empty();
        if let Some(certificate) = &self.certificate {
            roots.add(certificate.clone()).unwrap();
        }
        let mut options = options();
        options.tls = Some(tls_with(roots).unwrap());
        options
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn requests_of(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|(line, _)| line.contains(part)).count()
    }
}

/// A cache with these paths, in the ordinary way; ETags, ranges and conditions like nginx.
pub(crate) fn cache_of(
    paths: Vec<Path>,
) -> impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync {
    move |request| {
        let name = request.uri().path().trim_start_matches('/').to_owned();
        if name == "nix-cache-info" {
            return answer(200, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
        }
        for path in &paths {
            if name == path.file_name() {
                return file(&request, path.narinfo().into());
            }
            if name == format!("nar/{}.nar", path.hash()) {
                return file(&request, path.nar.clone().into());
            }
        }
        answer(404, "not here")
    }
}

/// Answers for a static file.
pub(crate) fn file(request: &Request<Incoming>, bytes: Bytes) -> Response<Body> {
    let tag = format!("\"{}\"", NarHash::of(&bytes).to_nix32());
    let field = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    if field("if-none-match").is_some_and(|known| known == tag) {
        return Response::builder().status(304).header("etag", tag).body(body("")).unwrap();
    }
    let builder = Response::builder().header("etag", &tag).header("accept-ranges", "bytes");
    let range = field("range").filter(|_| field("if-range").is_none_or(|known| known == tag));
    let Some(range) = range else { return builder.body(body(bytes)).unwrap() };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
    if first >= bytes.len() {
        return answer(416, "");
    }
    builder
        .status(206)
        .header("content-range", format!("bytes {first}-{}/{}", last - 1, bytes.len()))
        .body(body(bytes.slice(first..last)))
        .unwrap()
}
