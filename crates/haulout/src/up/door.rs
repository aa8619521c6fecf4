//! The agent's HTTP side for machines without an agent, and what they upload.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_gateway::{Cut, Door, Logins, Refused, Uploads};
use haulout_nix::{HashPart, PathInfo, StoreDir};
use haulout_upstream::target::{Receiver, Refusal};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::config::Settings;
use crate::error::{Context, Failure, Outcome};

/// Largest file of logins, in bytes.
const LOGINS_BYTES_MAX: u64 = 1 << 20;
/// Bytes read from an uploaded file at a time.
const READ_BYTES: usize = 128 * 1024;

/// The open port with everything behind it; `None`: the settings open none.
pub(crate) fn open(
    settings: &Settings,
    judge: impl Fn(&PathInfo) -> Result<(), String> + Send + Sync + 'static,
) -> Outcome<Option<(TcpListener, Door)>> {
    let gateway = &settings.gateway;
    let Some(listen) = gateway.listen else { return Ok(None) };
    let readers = logins(gateway.readers_file.as_deref(), "gateway.readers_file")?;
    let writers = logins(gateway.writers_file.as_deref(), "gateway.writers_file")?;
    let tls = tls(gateway.tls_cert.as_deref(), gateway.tls_key.as_deref())?;
    let uploads: Option<Arc<dyn Uploads>> = match &gateway.uploads_dir {
        None => None,
        Some(_) if writers.is_empty() => {
            return Err(Failure::new("gateway.uploads_dir needs gateway.writers_file")
                .hint("uploads are for those with a password: lines NAME:PASSWORD"));
        }
        Some(dir) => {
            let quota = gateway.uploads_quota.0;
            let receiver = Receiver::open(dir.clone(), StoreDir::default(), quota, Arc::new(judge));
            let receiver =
                receiver.context(|| format!("cannot take uploads in {}", dir.display()))?;
            Some(Arc::new(Taken(receiver)))
        }
    };
    let secret = !readers.is_empty() || !writers.is_empty();
    if secret && tls.is_none() && !listen.ip().is_loopback() {
        tracing::warn!(
            "gateway: passwords are asked for without TLS: anybody on the network can read them"
        );
    }
    let listener = listen_on(listen)?;
    Ok(Some((listener, Door { tls, allow: gateway.allow.clone(), readers, writers, uploads })))
}

fn listen_on(listen: SocketAddr) -> Outcome<TcpListener> {
    haulout_gateway::bind(listen, true).map_err(|error| {
        Failure::new("cannot open the port for machines without an agent")
            .because(error)
            .hint("choose another one with `listen` in [gateway]")
    })
}

fn logins(file: Option<&Path>, setting: &str) -> Outcome<Logins> {
    let Some(file) = file else { return Ok(Logins::default()) };
    let reading = || format!("{setting}: cannot read {}", file.display());
    let size = std::fs::metadata(file).context(reading)?.len();
    if size > LOGINS_BYTES_MAX {
        return Err(Failure::new(format!("{}: has {size} bytes", reading())));
    }
    let text = std::fs::read_to_string(file).context(reading)?;
    let logins = Logins::parse(&text).map_err(|why| {
        Failure::new(format!("{setting}: {}: {why}", file.display()))
            .hint("one login a line: NAME:PASSWORD; the password alone is a bearer token too")
    })?;
    if logins.is_empty() {
        return Err(Failure::new(format!("{setting}: {} has no login", file.display()))
            .hint("leave the setting out to ask nobody for a password"));
    }
    Ok(logins)
}

fn tls(cert: Option<&Path>, key: Option<&Path>) -> Outcome<Option<Arc<rustls::ServerConfig>>> {
    let (cert, key) = match (cert, key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => {
            return Err(Failure::new("gateway.tls_cert and gateway.tls_key go together")
                .hint("for TLS set both, for a proxy in front none"));
        }
    };
    let certificate = Certificate::open(cert, key)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&certificate.provider))
        .with_safe_default_protocol_versions()
        .context(|| "cannot set TLS up".to_owned())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    Ok(Some(Arc::new(config)))
}

/// How often the certificate's file is looked at: renewals come weeks before the old one ends.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

/// A certificate that is read again when its file changes.
#[derive(Debug)]
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    certified: Arc<CertifiedKey>,
    modified: Option<SystemTime>,
    looked: Instant,
}

impl Certificate {
    fn open(cert: &Path, key: &Path) -> Outcome<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let held = Held {
            certified: Arc::new(certified(cert, key, &provider)?),
            modified: modified(cert),
            looked: Instant::now(),
        };
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), provider, held: Mutex::new(held) })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.elapsed() >= RENEWAL_LOOK {
            held.looked = Instant::now();
            let now = modified(&self.cert);
            if now != held.modified {
                match certified(&self.cert, &self.key, &self.provider) {
                    Ok(certified) => {
                        (held.certified, held.modified) = (Arc::new(certified), now);
                        tracing::info!("certificate {} read again", self.cert.display());
                    }
                    // Half written, perhaps: the old one holds until the next look.
                    Err(failure) => tracing::warn!("{}", failure.chain()),
                }
            }
        }
        Some(Arc::clone(&held.certified))
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

fn certified(cert: &Path, key: &Path, provider: &CryptoProvider) -> Outcome<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).context(|| {
            format!("gateway.tls_cert: cannot read certificates from {}", cert.display())
        })?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .context(|| format!("gateway.tls_key: cannot read a key from {}", key.display()))?;
    CertifiedKey::from_der(chain, secret, provider)
        .context(|| format!("gateway.tls_cert: {} and its key do not work", cert.display()))
}

/// Joins the directory of uploads to the door.
struct Taken(Receiver);

fn refused(refusal: &Refusal) -> Refused {
    let status = match refusal {
        Refusal::Wrong(_) | Refusal::Cut => 400,
        Refusal::NotTrusted(_) => 403,
        Refusal::Busy => 429,
        Refusal::Full(_) => 507,
        Refusal::Io(error) => {
            tracing::error!(%error, "an upload could not be kept");
            507
        }
    };
    Refused { status, why: refusal.to_string() }
}

impl Uploads for Taken {
    fn narinfo(&self, hash: HashPart) -> BoxFuture<'_, Option<Bytes>> {
        self.0.narinfo(hash).boxed()
    }

    fn size_of<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<u64>> {
        self.0.size_of(name).boxed()
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        from: u64,
    ) -> BoxFuture<'a, Option<BoxStream<'static, Result<Bytes, Cut>>>> {
        async move {
            let mut file = self.0.open_file(name).await?;
            file.seek(std::io::SeekFrom::Start(from)).await.ok()?;
            let pieces = stream::unfold(Some(file), |file| async {
                let mut file = file?;
                let mut piece = bytes::BytesMut::with_capacity(READ_BYTES);
                match file.read_buf(&mut piece).await {
                    Ok(0) => None,
                    Ok(_) => Some((Ok(piece.freeze()), Some(file))),
                    Err(error) => Some((Err(Cut::new(error.to_string())), None)),
                }
            });
            Some(pieces.boxed())
        }
        .boxed()
    }

    fn put_file<'a>(
        &'a self,
        name: &'a str,
        body: BoxStream<'static, Result<Bytes, Cut>>,
    ) -> BoxFuture<'a, Result<(), Refused>> {
        let body = body.map(|piece| piece.map_err(|_| Refusal::Cut));
        async move { self.0.put_file(name, body).await.map_err(|refusal| refused(&refusal)) }
            .boxed()
    }

    fn put_narinfo(&self, hash: HashPart, text: Bytes) -> BoxFuture<'_, Result<(), Refused>> {
        async move { self.0.put_narinfo(hash, &text).await.map_err(|refusal| refused(&refusal)) }
            .boxed()
    }
}
