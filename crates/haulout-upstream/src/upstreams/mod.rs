//! All upstreams together.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use haulout_nix::{HashPart, NarInfo, PathInfo, StoreDir};
use serde::Serialize;

use crate::address::{Address, CacheUrl};
use crate::error::Trouble;
use crate::http::{Client, Proxies, netrc};
use crate::location::FileLocation;
use crate::store::s3::{Environment, S3};
use crate::store::{Auth, DirStore, HttpStore, Store};
use crate::stream::{self, FileStream};
use crate::upstream::{Said, Upstream};

/// Upstreams at a time, found ones included. Each may be asked about every missing path.
pub const UPSTREAMS_MAX: usize = 32;
/// A question that was out for less says more about the asker than about the upstream.
const BLAME_FROM: Duration = Duration::from_millis(150);
/// Questions that are open at a time; further ones are answered "unknown" at once.
const FLIGHTS_MAX: usize = 1024;

/// Names an upstream: its URL without parameters and passwords.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub(crate) Arc<str>);

impl UpstreamId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an upstream is reached, and how it came to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP or HTTPS.
    Http,
    /// An S3-compatible service.
    S3,
    /// A directory.
    Directory,
    /// HTTP, found on the local network.
    Neighbour,
}

/// Says whether a path info may be believed; the text is for logs.
pub type Judge = dyn Fn(&PathInfo) -> Result<(), String> + Send + Sync;

/// A narinfo that the judge accepted, and where its NAR is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the upstream says, parsed.
    pub narinfo: NarInfo,
    /// The file with the NAR.
    pub file: FileLocation,
}

/// What all upstreams together say about a path.
#[derive(Debug, Clone)]
pub enum Answer {
    /// One of them has it.
    Found(Arc<Found>),
    /// All of them answered, and none has it (or only in a form that is not believed).
    Absent,
    /// At least one did not answer; the last trouble.
    Unknown(Trouble),
}

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

/// One upstream as `haulout status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    /// Its URL.
    pub url: String,
    /// What it is.
    pub kind: Kind,
    /// Lower is asked first.
    pub priority: i64,
    /// Median time to an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// For how much longer it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<Duration>,
    /// The last trouble with it, also when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// narinfos it had.
    pub found: u64,
    /// narinfos it did not have.
    pub absent: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Bytes it sent, compressed, narinfos included.
    pub bytes: u64,
}

type Flight = Shared<BoxFuture<'static, Answer>>;

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

    /// Asks for a path, waiting no longer than `budget`. A question that takes longer goes on
    /// behind the asker's back, for at most ten seconds, and its answer is there for the next one.
    pub async fn narinfo(&self, hash: HashPart, budget: Duration) -> Answer {
        if let Some(answer) = self.remembered(&hash) {
            return answer;
        }
        let Some(flight) = self.fly(hash) else { return Answer::Unknown(Trouble::Busy) };
        match tokio::time::timeout(budget, flight).await {
            Ok(answer) => answer,
            Err(_) => {
                self.list().iter().for_each(|upstream| upstream.kept_waiting(&hash, BLAME_FROM));
                Answer::Unknown(Trouble::OverBudget)
            }
        }
    }

    /// Asks one upstream only, waiting no longer than `budget`.
    pub async fn narinfo_from(&self, id: &UpstreamId, hash: HashPart, budget: Duration) -> Answer {
        let Some(upstream) = self.get(id) else {
            return Answer::Unknown(Trouble::Unusable(
                "it is not an upstream of this machine".into(),
            ));
        };
        let judge = Arc::clone(&self.inner.options.judge);
        // A task of its own: the answer is remembered even if it comes too late for this asker.
        let asked = Arc::clone(&upstream);
        let task = tokio::spawn(async move { asked.narinfo(hash, &*judge).await });
        match tokio::time::timeout(budget, task).await {
            Ok(Ok(Said::Found(found))) => Answer::Found(found),
            Ok(Ok(Said::Absent)) => Answer::Absent,
            Ok(Ok(Said::Unknown(trouble))) => Answer::Unknown(trouble),
            Ok(Err(_)) => Answer::Unknown(Trouble::Busy),
            Err(_) => {
                upstream.kept_waiting(&hash, BLAME_FROM);
                Answer::Unknown(Trouble::OverBudget)
            }
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

    /// What is known of a path without asking anybody; `None`: it would have to be asked.
    #[must_use]
    pub fn remembered(&self, hash: &HashPart) -> Option<Answer> {
        let now = Instant::now();
        let list = self.order(now);
        let mut unknown = false;
        for upstream in &list {
            match upstream.remembered(hash, now) {
                Some(Said::Found(found)) => return Some(Answer::Found(found)),
                Some(Said::Absent) => {}
                Some(Said::Unknown(_)) | None => unknown = true,
            }
        }
        (!unknown && list.len() == self.list().len()).then_some(Answer::Absent)
    }

    /// Joins the question in flight, or asks it; `None`: too many are.
    fn fly(&self, hash: HashPart) -> Option<Flight> {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&hash) {
            return Some(flight.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let asking = self.clone();
        // A task of its own: an asker that gives up does not take the question along.
        let task = tokio::spawn(async move {
            let answer = asking.ask_all(hash).await;
            asking.inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
            answer
        });
        let flight =
            task.map(|done| done.unwrap_or(Answer::Unknown(Trouble::Busy))).boxed().shared();
        flights.insert(hash, flight.clone());
        Some(flight)
    }

    /// Asks one after the other by priority, the next one as soon as the one before says no or
    /// takes longer than it usually does. The first that has it wins.
    async fn ask_all(&self, hash: HashPart) -> Answer {
        let all = self.list().len();
        let list = self.order(Instant::now());
        let mut trouble = (list.len() < all).then_some(Trouble::LeftAlone {
            wait: Duration::ZERO,
            why: "earlier trouble".to_owned(),
        });
        let mut waiting = list.into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            let mut hedge = Duration::MAX;
            if let Some(upstream) = waiting.next() {
                hedge = upstream.hedge_after();
                let judge = Arc::clone(&self.inner.options.judge);
                asked.push(async move { upstream.narinfo(hash, &*judge).await });
            } else if asked.is_empty() {
                break;
            }
            let first = match waiting.len() {
                0 => asked.next().await,
                _ => tokio::time::timeout(hedge, asked.next()).await.unwrap_or(None),
            };
            match first {
                Some(Said::Found(found)) => return Answer::Found(found),
                Some(Said::Unknown(why)) => trouble = Some(why),
                Some(Said::Absent) | None => {}
            }
        }
        trouble.map_or(Answer::Absent, Answer::Unknown)
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
