//! The running parts of the agent, and how they are put together.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use haulout_cache::Spill;
use haulout_gateway::api::{AgentStatus, CacheReport, Warning};
use haulout_mesh::Mesh;
use haulout_mesh::networks::Networks;
use haulout_nix::{PathInfo, PublicKey};
use haulout_resolver::peers::{NoPeers, Peers};
use haulout_resolver::trust::Trust;
use haulout_resolver::{Resolver, ResolverConfig};
use haulout_upstream::Upstreams;
use tokio::task::JoinHandle;

use super::READY_LINE;
use super::archives::{self, Archives};
use super::host_key::{self, host_key};
use super::keys::Keys;
use super::pushing::Pusher;
use super::{mesh, networks, open, outside, power};
use crate::config::Settings;
use crate::error::{Context, Outcome};

/// What this machine believes at the moment, for those who judge path infos outside the resolver.
#[derive(Clone, Default)]
pub(crate) struct SharedTrust(Arc<RwLock<Trust>>);

impl SharedTrust {
    fn set(&self, trust: Trust) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }

    /// Whether an info may be believed; the text says why not.
    pub(crate) fn judge(&self, info: &PathInfo) -> Result<(), String> {
        let trust = self.0.read().unwrap_or_else(PoisonError::into_inner);
        trust.judge(info).map(|_| ()).map_err(|refusal| refusal.to_string())
    }
}

/// Everything that runs beside the HTTP side.
pub(crate) struct Agent {
    resolver: Arc<Resolver>,
    mesh: Option<Mesh>,
    trust: SharedTrust,
    upstreams: Upstreams,
    archives: Archives,
    pushing: Option<JoinHandle<()>>,
    http: SocketAddr,
    signing_key: Option<String>,
    host_key: PublicKey,
    /// What holds now: what needs a restart as at the start, the rest as last read.
    settings: Mutex<Settings>,
}

impl Agent {
    /// Reads the store, makes or reads the identity, joins the mesh.
    pub(crate) async fn start(
        settings: Settings,
        http: SocketAddr,
        trust: SharedTrust,
        networks: Networks,
    ) -> Outcome<Self> {
        let mut keys = Keys::gather(&settings)?;
        let store = open::store_location(&settings);
        let store_dir = store.store_dir.clone();
        trust.set(Trust { store_dir: store_dir.clone(), keys: keys.trusted.clone() });
        let pusher = Pusher::open(&settings, store, keys.trusted.clone())?;
        let identity = open::identity(&settings)?;
        let host_secret = Arc::new(host_key(&identity)?);
        let host_key = host_secret.public_key().clone();
        keys.share.withheld = Some(host_key.name().to_owned());
        let signing_key = keys.share.mesh_key.as_ref().map(|key| key.public_key().to_string());
        let mut warnings = keys.warnings;
        if keys.trusted.is_empty() {
            warnings.push(no_trusted_keys());
        }
        if let Some(dir) = host_key::runtime_dir() {
            open::tell_nix(&dir, &host_key, &mut warnings);
        }
        let opening = archives::Parts {
            settings: &settings,
            store_dir: store_dir.clone(),
            trusted: &keys.trusted,
            host_key: host_secret,
        };
        let mut archives = Archives::open(opening, &mut warnings).await;
        let config = ResolverConfig {
            share: keys.share,
            cache: open::cache(&settings, &mut warnings).await,
            ..open::resolver_config(&settings, open::with(&keys.trusted, &host_key))
        };
        let spill = match config.cache.is_some() && settings.mesh.enable {
            true => open::spill(&settings, &mut warnings).await,
            false => None,
        };
        let cache_dir = config.cache.as_ref().map(|_| settings.cache.dir.display().to_string());
        let serving = open::store(config.clone()).await?;
        serving.set_proofs(archives.proofs());
        let upstreams = outside::gather(&settings, store_dir, trust.clone(), &mut warnings);
        let mut mesh = None;
        if settings.mesh.enable {
            let mut config = mesh::config(&settings, identity, &mut warnings).await?;
            config.neighbours = outside::neighbours(&settings, &upstreams);
            config.networks = Some(networks.clone());
            mesh = Some(mesh::join(&settings, config, &serving).await?);
        }
        let peers: Arc<dyn Peers> = match &mesh {
            Some(mesh) => Arc::new(mesh.clone()),
            None => Arc::new(NoPeers),
        };
        let resolver = Arc::new(Resolver::start(&config, serving, peers));
        upstreams.warm();
        resolver.set_upstreams(upstreams.clone());
        let (network, has_cache) = (archives.network(), config.cache.is_some());
        super::walrus::join(&settings, &resolver, network, has_cache, &mut warnings).await;
        if !archives.is_empty() {
            let (share, dir) = (settings.share.enable, &settings.state.dir);
            resolver.set_archives(archives.start(mesh.as_ref(), &resolver, share, dir));
        }
        set_limits(&settings, &resolver, spill);
        for warning in &warnings {
            tracing::warn!("{}", warning.text);
        }
        resolver.set_about(AgentStatus {
            cache: CacheReport { dir: cache_dir, ..CacheReport::default() },
            warnings,
            ..about(&settings, mesh.as_ref(), http)
        });
        networks::show(&networks.now(), &resolver);
        tokio::spawn(networks::report(networks, mesh.clone(), Arc::clone(&resolver)));
        let pushing = pusher.map(|pusher| tokio::spawn(pusher.run()));
        Ok(Self {
            resolver,
            mesh,
            trust,
            upstreams,
            archives,
            pushing,
            http,
            signing_key,
            host_key,
            settings: Mutex::new(settings),
        })
    }

    /// What the HTTP side asks.
    pub(crate) fn resolver(&self) -> Arc<Resolver> {
        Arc::clone(&self.resolver)
    }

    /// Says on standard output where the agent is and what to tell Nix.
    pub(crate) fn announce(&self) {
        let url = format!("http://{}", self.http);
        if let Some(mesh) = &self.mesh {
            println!("peer id: {}", mesh.id());
        }
        println!("To let Nix ask this agent, add to nix.conf:");
        println!("  extra-substituters = {url}");
        println!("  extra-trusted-substituters = {url}");
        let host_key = self.host_key.to_string();
        let keys: Vec<&str> =
            self.signing_key.iter().chain([&host_key]).map(String::as_str).collect();
        println!("  extra-trusted-public-keys = {}", keys.join(" "));
        // Last, because scripts wait for it.
        println!("{READY_LINE}{url}");
        tracing::info!("substituter for Nix at {url}");
    }

    /// Takes over what can change while running: keys, and what is shared.
    pub(crate) async fn reload(&self, settings: Settings) -> Outcome<()> {
        let mut keys = Keys::gather(&settings)?;
        keys.share.withheld = Some(self.host_key.name().to_owned());
        for warning in &keys.warnings {
            tracing::warn!("{}", warning.text);
        }
        let (believed, shared) = (keys.trusted.iter().count(), keys.share.keys.iter().count());
        let store_dir = open::store_location(&settings).store_dir;
        self.trust.set(Trust { store_dir, keys: keys.trusted.clone() });
        self.archives.set_trusted(&keys.trusted);
        self.resolver.set_trusted_keys(open::with(&keys.trusted, &self.host_key));
        self.upstreams.forget_all();
        let resolver = Arc::clone(&self.resolver);
        tokio::task::spawn_blocking(move || resolver.set_share_policy(keys.share))
            .await
            .context(|| "taking over the sharing rule was cut off".to_owned())?;
        let differences = {
            let mut held = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            let differences = held.differences(&settings);
            held.trust = settings.trust;
            held.share = settings.share;
            held.mesh.signing_key_file = settings.mesh.signing_key_file;
            let in_words = held.in_words();
            self.resolver.change_about(|about| about.settings = in_words);
            differences
        };
        let changed = match differences.live.as_slice() {
            [] => "nothing".to_owned(),
            names => names.join(", "),
        };
        tracing::info!(
            "settings read again, changed: {changed}; keys trusted: {believed}, keys shared by: {shared}"
        );
        if !differences.restart.is_empty() {
            tracing::warn!(
                "these settings changed and need a restart: {}",
                differences.restart.join(", ")
            );
        }
        Ok(())
    }

    /// Leaves the mesh.
    pub(crate) async fn stop(self) {
        if let Some(pushing) = self.pushing {
            pushing.abort();
        }
        self.archives.stop();
        if let Some(mesh) = self.mesh {
            mesh.shutdown().await;
        }
    }
}

fn no_trusted_keys() -> Warning {
    Warning {
        code: "no-trusted-keys".to_owned(),
        text: "no key is trusted, so nothing can be believed or shared".to_owned(),
        hint: Some("set trusted-public-keys in nix.conf, or `keys` in [trust]".to_owned()),
    }
}

/// What may be fetched, how fast, and where it is kept meanwhile; less on battery and metered links.
fn set_limits(settings: &Settings, resolver: &Arc<Resolver>, spill: Option<Spill>) {
    if let Some(spill) = spill {
        resolver.site().keep_on_disk(spill);
    }
    resolver.site().limit_download(settings.site.download.map(|rate| rate.0));
    resolver.limit_from_peers(settings.site.from_peers.map(|rate| rate.0));
    tokio::spawn(power::watch(Arc::downgrade(resolver), settings.site.clone()));
}

/// What does not change while the agent runs.
fn about(settings: &Settings, mesh: Option<&Mesh>, http: SocketAddr) -> AgentStatus {
    AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        peer_id: mesh.map(|mesh| mesh.id().to_string()),
        http_listen: vec![http],
        mesh_listen: mesh.map(Mesh::local_addrs).unwrap_or_default(),
        settings: settings.in_words(),
        ..AgentStatus::default()
    }
}
