//! Through a proxy, where the environment names one: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in small or
//! capital letters.
//!
//! A request for https goes through a tunnel (`CONNECT`), so that the proxy sees no more than a name; one for http is given to
//! the proxy whole. Names are then looked up by the proxy and not here. Proxies are spoken to over plain HTTP; one of another
//! kind is an error and not a reason to go around it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// How long a proxy may take to make a tunnel.
const TUNNEL_MAX: Duration = Duration::from_secs(10);

/// Which proxies to use for what. The default: none.
#[derive(Clone, Debug)]
pub struct Proxies(Arc<Matcher>);

impl Default for Proxies {
    fn default() -> Self {
        Self(Arc::new(Matcher::builder().build()))
    }
}

impl Proxies {
    /// What the environment of this process says.
    #[must_use]
    pub fn from_env() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    /// One proxy for everything but the hosts of a list like that of `no_proxy`.
    #[must_use]
    pub fn all(proxy: &str, except: &str) -> Self {
        let matcher = Matcher::builder().all(proxy.to_owned()).no(except.to_owned());
        Self(Arc::new(matcher.build()))
    }

    /// The proxy for a URL; `None`: it is visited directly. This machine always is.
    fn of(&self, url: &Uri) -> Option<Intercept> {
        let host = url.host()?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let here = host.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if here { None } else { self.0.intercept(url) }
    }

    /// What a request for this URL must say to the proxy that it is given to whole.
    pub(super) fn login(&self, url: &Uri) -> Option<HeaderValue> {
        if url.scheme_str() == Some("https") {
            return None;
        }
        self.of(url)?.basic_auth().cloned()
    }
}

/// Makes connections: direct ones with `R` looking up names, or through a proxy.
#[derive(Clone, Debug)]
pub(super) struct Through<R> {
    pub(super) direct: HttpConnector<R>,
    pub(super) to_proxy: HttpConnector<GaiResolver>,
    pub(super) proxies: Proxies,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<R> Service<Uri> for Through<R>
where
    HttpConnector<R>: Service<Uri, Response = TokioIo<TcpStream>>,
    <HttpConnector<R> as Service<Uri>>::Error: Into<BoxError>,
    <HttpConnector<R> as Service<Uri>>::Future: Send + 'static,
{
    type Response = Via;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Via, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        std::task::ready!(self.direct.poll_ready(cx)).map_err(Into::into)?;
        self.to_proxy.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&url) else {
            let direct = self.direct.call(url);
            return Box::pin(async move {
                Ok(Via { stream: direct.await.map_err(Into::into)?, whole: false })
            });
        };
        let mut connector = self.to_proxy.clone();
        Box::pin(async move {
            let named = proxy.uri().host().unwrap_or_default().to_owned();
            through(&mut connector, &proxy, url)
                .await
                .map_err(|error| format!("the proxy {named}: {}", innermost(&*error)).into())
        })
    }
}

async fn through(
    connector: &mut HttpConnector<GaiResolver>,
    proxy: &Intercept,
    url: Uri,
) -> Result<Via, BoxError> {
    if proxy.uri().scheme_str() != Some("http") {
        return Err("only proxies named http://HOST:PORT can be used".into());
    }
    if url.scheme_str() != Some("https") {
        let stream = connector.call(proxy.uri().clone()).await?;
        return Ok(Via { stream, whole: true });
    }
    let mut tunnel = Tunnel::new(proxy.uri().clone(), connector.clone());
    if let Some(login) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(login.clone());
    }
    let made = tokio::time::timeout(TUNNEL_MAX, tunnel.call(url)).await;
    Ok(Via { stream: made.map_err(|_| "it does not answer")??, whole: false })
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// A connection, and whether it leads to a proxy that is given requests whole.
#[derive(Debug)]
pub(super) struct Via {
    stream: TokioIo<TcpStream>,
    whole: bool,
}

impl Connection for Via {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.whole)
    }
}

impl Read for Via {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Via {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_exceptions_are_visited_directly() {
        let proxies = Proxies::all("http://me:p%40ss@proxy.lan:3128", ".example.org,10.0.0.0/8");
        let of = |url: &str| proxies.of(&url.parse().unwrap()).map(|one| one.uri().to_string());
        for direct in [
            "http://localhost:5000/",
            "http://127.0.0.1/",
            "https://[::1]/",
            "https://sub.example.org/",
            "http://10.9.8.7/",
        ] {
            assert_eq!(of(direct), None, "{direct}");
        }
        for proxied in ["http://other.org/", "https://cache.nixos.org/", "http://11.0.0.1/"] {
            assert_eq!(of(proxied).unwrap(), "http://proxy.lan:3128/", "{proxied}");
        }
        let login = |url: &str| proxies.login(&url.parse().unwrap());
        assert_eq!(login("http://other.org").unwrap(), "Basic bWU6cEBzcw==");
        // In a tunnel it is said once, and not to the cache.
        assert_eq!(login("https://other.org"), None);
        assert!(Proxies::default().of(&"http://other.org".parse().unwrap()).is_none());
    }
}
