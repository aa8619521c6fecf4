//! How connections are made.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use super::CONNECT_MAX;
use super::proxy::{Proxies, Through};

/// To the hosts that the configuration names.
pub(super) type Connector = Through<GaiResolver>;
/// To public addresses only.
pub(super) type PublicOnly = Through<Filtered>;

pub(super) fn named(proxies: Proxies) -> Connector {
    let direct = settings(HttpConnector::new());
    Through { direct, to_proxy: settings(HttpConnector::new()), proxies }
}

/// With a proxy, it is the proxy that looks up names and decides what may be visited.
pub(super) fn public_only(may_visit: fn(IpAddr) -> bool, proxies: Proxies) -> PublicOnly {
    let filtered = Filtered { inner: GaiResolver::new(), may_visit };
    let direct = settings(HttpConnector::new_with_resolver(filtered));
    Through { direct, to_proxy: settings(HttpConnector::new()), proxies }
}

fn settings<R>(mut connector: HttpConnector<R>) -> HttpConnector<R> {
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_MAX));
    connector.set_keepalive(Some(std::time::Duration::from_secs(30)));
    connector
}

/// Resolves names and leaves out addresses that may not be visited. Checked here and not before,
/// because a name can resolve to something else the second time.
#[derive(Clone, Debug)]
pub(super) struct Filtered {
    inner: GaiResolver,
    may_visit: fn(IpAddr) -> bool,
}

impl Service<Name> for Filtered {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, may_visit) = (self.inner.call(name), self.may_visit);
        Box::pin(async move {
            let usable: Vec<_> = found.await?.filter(|addr| may_visit(addr.ip())).collect();
            if usable.is_empty() {
                return Err(io::Error::other("a redirect led to an address that is not public"));
            }
            Ok(usable.into_iter())
        })
    }
}
