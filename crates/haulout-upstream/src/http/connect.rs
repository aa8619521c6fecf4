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

/// To the hosts that the configuration names.
pub(super) type Connector = HttpConnector<GaiResolver>;
/// To public addresses only.
pub(super) type PublicOnly = HttpConnector<Filtered>;

pub(super) fn named() -> Connector {
    settings(HttpConnector::new())
}

pub(super) fn public_only(may_visit: fn(IpAddr) -> bool) -> PublicOnly {
    settings(HttpConnector::new_with_resolver(Filtered { inner: GaiResolver::new(), may_visit }))
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
