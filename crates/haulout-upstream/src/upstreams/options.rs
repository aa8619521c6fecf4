//! What upstreams need besides their URLs.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use haulout_nix::{PathInfo, StoreDir};

use crate::http::Proxies;
use crate::store::s3::Environment;

/// Says whether a path info may be believed; the text is for logs.
pub type Judge = dyn Fn(&PathInfo) -> Result<(), String> + Send + Sync;

/// What is needed besides the URLs.
#[derive(Clone)]
pub struct Options {
    /// The store that paths must belong to.
    pub store_dir: StoreDir,
    /// Who decides what is believed.
    pub judge: Arc<Judge>,
    /// Passwords for caches, as for Nix (`netrc-file`).
    pub netrc: Option<PathBuf>,
    /// TLS settings; `None`: [`crate::system_tls`].
    pub tls: Option<rustls::ClientConfig>,
    /// Which addresses a redirect to another host may lead to; `None`: public ones.
    pub redirects_to: Option<fn(IpAddr) -> bool>,
    /// Proxies for the caches of the settings; `None`: what the environment says. Caches on the
    /// local network are always asked directly.
    pub proxies: Option<Proxies>,
    /// Where credentials for S3 come from; `None`: from this process's environment.
    pub(crate) aws: Option<Environment>,
}

impl Options {
    /// The defaults for a store, with a judge.
    pub fn new(
        store_dir: StoreDir,
        judge: impl Fn(&PathInfo) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let netrc = Some(PathBuf::from("/etc/nix/netrc"));
        Self {
            store_dir,
            judge: Arc::new(judge),
            netrc,
            tls: None,
            redirects_to: None,
            proxies: None,
            aws: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("store_dir", &self.store_dir).finish_non_exhaustive()
    }
}
