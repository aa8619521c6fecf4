//! All upstreams together.

mod ask;
mod options;
mod report;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use haulout_nix::{HashPart, NarInfo};

use crate::address::{Address, CacheUrl};
use crate::error::Trouble;
use crate::http::{Client, Proxies, netrc};
use crate::location::FileLocation;
use crate::store::s3::{Environment, S3};
use crate::store::{Auth, DirStore, HttpStore, Store};
use crate::stream::{self, FileStream};
use crate::upstream::Upstream;

use ask::Flight;
pub use options::{Judge, Options};
pub use report::{Answer, Found, Kind, UpstreamId, UpstreamStatus};

/// Upstreams at a time, found ones included. Each may be asked about every missing path.
pub const UPSTREAMS_MAX: usize = 32;

/// The caches that are asked for what nobody on the network has. Cheap to clone.
///
/// Needs a tokio runtime with I/O and time.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    /// To the caches of the settings, and (second) to those on the local network.
    clients: Option<[Client; 2]>,
    /// Why there is no client.
    no_client: String,
    list: RwLock<Vec<Arc<Upstream>>>,
    flights: Mutex<HashMap<HashPart, Flight>>,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list().iter().map(|upstream| upstream.id())).finish()
    }
}

impl Upstreams {
    /// No upstreams yet; [`Upstreams::add`] them.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let tls = options.tls.clone().map_or_else(crate::system_tls, Ok);
        let may_visit = options.redirects_to.unwrap_or(crate::http::is_public);
        let proxies = options.proxies.clone().unwrap_or_else(Proxies::from_env);
        let clients = |tls: rustls::ClientConfig| {
            [proxies, Proxies::default()]
                .map(|proxies| Client::new(tls.clone(), may_visit, proxies))
        };
        let (clients, no_client) = match tls {
            Ok(tls) => (Some(clients(tls)), String::new()),
            Err(why) => (None, why),
        };
        let list = RwLock::default();
        let flights = Mutex::default();
        Self { inner: Arc::new(Inner { options, clients, no_client, list, flights }) }
    }

    /// Adds a cache; its name. Adding one that is there changes nothing.
    ///
    /// # Errors
    /// Why it cannot be used at all (for people): a bad profile, no certificates, too many.
    pub fn add(&self, url: &CacheUrl) -> Result<UpstreamId, String> {
        self.add_as(url, false)
    }

    /// Adds a cache that was found on the local network.
    ///
    /// # Errors
    /// As [`Upstreams::add`].
    pub fn add_neighbour(&self, url: &CacheUrl) -> Result<UpstreamId, String> {
        self.add_as(url, true)
    }

    fn add_as(&self, url: &CacheUrl, neighbour: bool) -> Result<UpstreamId, String> {
        let id = UpstreamId(url.as_str().into());
        if self.list().iter().any(|upstream| *upstream.id() == id) {
            return Ok(id);
        }
        let upstream = self.inner.make(url, id.clone(), neighbour)?;
        let mut list = self.inner.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= UPSTREAMS_MAX {
            return Err(format!("more than {UPSTREAMS_MAX} upstreams"));
        }
        list.push(Arc::new(upstream));
        Ok(id)
    }

    /// Removes a cache that was found on the local network; one that the settings name too stays.
    pub fn remove_neighbour(&self, url: &CacheUrl) {
        let mut list = self.inner.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|upstream| upstream.id().as_str() != url.as_str() || !upstream.is_neighbour());
    }

    /// Removes a cache; transfers from it go on.
    pub fn remove(&self, id: &UpstreamId) {
        let mut list = self.inner.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|upstream| upstream.id() != id);
    }

    /// Whether one of them says that it is a haulout agent, which may be asking this machine in
    /// turn.
    #[must_use]
    pub fn asks_agents(&self) -> bool {
        self.list().iter().any(|upstream| upstream.is_agent())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// Introduces itself to all upstreams: connections are made and priorities known before the
    /// first question. Call it at the start and when the network changed.
    pub fn warm(&self) {
        for upstream in self.list() {
            tokio::spawn(async move {
                if let Err(trouble) = upstream.introduce().await {
                    tracing::debug!(upstream = %upstream.id(), %trouble, "not there yet");
                }
            });
        }
    }

    /// The names of all upstreams, those to be asked first in front.
    #[must_use]
    pub fn ids(&self) -> Vec<UpstreamId> {
        let mut list = self.list();
        list.sort_by_key(|upstream| upstream.priority());
        list.iter().map(|upstream| upstream.id().clone()).collect()
    }

    /// Whether it would be asked at this moment, and is not being left alone.
    #[must_use]
    pub fn available(&self, id: &UpstreamId) -> bool {
        self.get(id).is_some_and(|upstream| upstream.available())
    }

    /// Whether it wants a password (or a signature), so that what it gives is not for everybody.
    #[must_use]
    pub fn is_private(&self, id: &UpstreamId) -> bool {
        self.get(id).is_none_or(|upstream| upstream.is_private())
    }

    /// The file that a narinfo of this cache names, with its URL as the cache itself wrote it or
    /// relative to it; `None`: there is no such cache, or the URL leaves it. For narinfos that came
    /// in another way than from the cache.
    #[must_use]
    pub fn locate(&self, upstream: &str, narinfo: &NarInfo) -> Option<FileLocation> {
        let list = self.list();
        let upstream = list.iter().find(|one| one.id().as_str() == upstream)?;
        FileLocation::of(narinfo, upstream.id().clone(), upstream.base()).ok()
    }

    /// Opens a file at byte `from` (of the compressed file), `len` bytes of it or all that
    /// follow. Answers when the cache does: at most about ten seconds.
    ///
    /// # Errors
    /// Why there are no bytes; 404 is [`Trouble::Status`].
    pub async fn open(
        &self,
        file: &FileLocation,
        from: u64,
        len: Option<u64>,
    ) -> Result<FileStream, Trouble> {
        let upstream =
            self.get(&file.upstream).ok_or_else(|| Trouble::Unusable("it was removed".into()))?;
        stream::open(upstream, file, from, len).await
    }

    /// Forgets what was said about a path: its file turned out to be gone or wrong.
    pub fn forget(&self, hash: &HashPart) {
        self.list().iter().for_each(|upstream| upstream.forget(hash));
    }

    /// Forgets everything that was said, because the judge changed its mind.
    pub fn forget_all(&self) {
        self.list().iter().for_each(|upstream| upstream.forget_all());
    }

    /// All upstreams for reports, in the order in which they are asked.
    #[must_use]
    pub fn status(&self) -> Vec<UpstreamStatus> {
        let mut list = self.list();
        list.sort_by_key(|upstream| upstream.priority());
        list.iter().map(|upstream| upstream.status()).collect()
    }

    /// Lets what is remembered of a path be too old.
    #[cfg(test)]
    pub(crate) fn age_memory(&self, hash: &HashPart) {
        self.list().iter().for_each(|upstream| upstream.age_memory(hash));
    }

    fn get(&self, id: &UpstreamId) -> Option<Arc<Upstream>> {
        self.list().into_iter().find(|upstream| upstream.id() == id)
    }

    fn list(&self) -> Vec<Arc<Upstream>> {
        self.inner.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that may be asked now, in order. The others are looked at behind everybody's back.
    fn order(&self, now: Instant) -> Vec<Arc<Upstream>> {
        let mut list = self.list();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            for upstream in list.iter().filter(|upstream| upstream.probe_due(now)) {
                let upstream = Arc::clone(upstream);
                runtime.spawn(async move { upstream.probe().await });
            }
        }
        list.retain(|upstream| upstream.available());
        list.sort_by_key(|upstream| upstream.priority());
        list
    }
}

impl Inner {
    fn make(&self, url: &CacheUrl, id: UpstreamId, neighbour: bool) -> Result<Upstream, String> {
        let client = || match &self.clients {
            Some([_, direct]) if neighbour => Ok(direct.clone()),
            Some([client, _]) => Ok(client.clone()),
            None => Err(self.no_client.clone()),
        };
        let (kind, base, store) = match &url.address {
            Address::Http { base, login } => {
                let field = login.as_ref().map_or_else(|| self.netrc(base), netrc::basic);
                let auth = field.map_or(Auth::None, Auth::Field);
                let kind = if neighbour { Kind::Neighbour } else { Kind::Http };
                let store = HttpStore { client: client()?, base: base.clone(), auth };
                (kind, base.clone(), Store::Http(Box::new(store)))
            }
            Address::S3(bucket) => {
                let s3 = {
                    let environment = self.options.aws.clone();
                    let environment = environment.unwrap_or_else(Environment::of_process);
                    S3::open(bucket, &environment, client()?)?
                };
                let base = id.to_string();
                let store = HttpStore { client: client()?, base: base.clone(), auth: Auth::S3(s3) };
                (Kind::S3, base, Store::Http(Box::new(store)))
            }
            Address::Dir(path) => {
                let base = format!("file://{}", path.display());
                (Kind::Directory, base, Store::Dir(DirStore::new(path.clone())))
            }
        };
        let store_dir = self.options.store_dir.clone();
        Ok(Upstream::new(id, kind, base, store, store_dir, url.priority))
    }

    fn netrc(&self, base: &str) -> Option<hyper::header::HeaderValue> {
        let host = url::Url::parse(base).ok()?.host_str()?.to_owned();
        netrc::basic(&netrc::login(self.options.netrc.as_deref()?, &host)?)
    }
}
