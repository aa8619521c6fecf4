//! The running parts of the agent, and how they are put together.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use haulout_cache::{Cache, CacheConfig, OpenError, Spill, UnixTime};
use haulout_gateway::api::{AgentStatus, CacheReport, Warning};
use haulout_mesh::networks::Networks;
use haulout_mesh::{Identity, Mesh, MeshConfig, MeshSecret, StaticPeer, Strangers};
use haulout_nix::conf::NixConf;
use haulout_nix::db::StoreLocation;
use haulout_nix::{PathInfo, PublicKey};
use haulout_resolver::peers::{NoPeers, Peers};
use haulout_resolver::site::AheadLimits;
use haulout_resolver::trust::Trust;
use haulout_resolver::{KeepNars, Resolver, ResolverConfig, Serving};
use haulout_swarm::site::SEGMENT_BYTES;
use haulout_upstream::Upstreams;
use tokio::task::JoinHandle;

use super::READY_LINE;
use super::archives::{self, Archives};
use super::host_key::{self, host_key};
use super::keys::{Keys, read_small_file};
use super::pushing::Pusher;
use super::{networks, outside, power};
use crate::config::{CachedNars, Settings, StrangerPolicy};
use crate::error::{Context, Failure, Outcome};

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
        let store = store_location(&settings);
        let store_dir = store.store_dir.clone();
        trust.set(Trust { store_dir: store_dir.clone(), keys: keys.trusted.clone() });
        let pusher = Pusher::open(&settings, store, keys.trusted.clone())?;
        let identity = identity(&settings)?;
        let host_secret = Arc::new(host_key(&identity)?);
        let host_key = host_secret.public_key().clone();
        keys.share.withheld = Some(host_key.name().to_owned());
        let signing_key = keys.share.mesh_key.as_ref().map(|key| key.public_key().to_string());
        let mut warnings = keys.warnings;
        if keys.trusted.is_empty() {
            warnings.push(Warning {
                code: "no-trusted-keys".to_owned(),
                text: "no key is trusted, so nothing can be believed or shared".to_owned(),
                hint: Some("set trusted-public-keys in nix.conf, or `keys` in [trust]".to_owned()),
            });
        }
        if let Some(dir) = host_key::runtime_dir() {
            tell_nix(&dir, &host_key, &mut warnings);
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
            cache: open_cache(&settings, &mut warnings).await,
            keep_nars: match settings.cache.nars {
                CachedNars::Never => KeepNars::Never,
                CachedNars::Auto => KeepNars::Auto,
                CachedNars::All => KeepNars::All,
            },
            fetch_for_others: settings.site.fetch_for_others,
            site_memory: settings.site.memory.0,
            ahead: AheadLimits {
                // What is fetched ahead must not push out what is owed to others.
                bytes: settings.site.ahead.0.min(settings.site.memory.0 / 2),
                bytes_per_second: settings.site.ahead_rate.map(|rate| rate.0),
            },
            ..ResolverConfig::new(store_location(&settings), with(&keys.trusted, &host_key))
        };
        let spill = match config.cache.is_some() && settings.mesh.enable {
            true => open_spill(&settings, &mut warnings).await,
            false => None,
        };
        let cache_dir = config.cache.as_ref().map(|_| settings.cache.dir.display().to_string());
        let serving = open_store(config.clone()).await?;
        serving.set_proofs(archives.proofs());
        let upstreams = outside::gather(&settings, store_dir, trust.clone(), &mut warnings);
        let mesh = match settings.mesh.enable {
            true => {
                let mut config = mesh_config(&settings, identity, &mut warnings).await?;
                config.neighbours = outside::neighbours(&settings, &upstreams);
                config.networks = Some(networks.clone());
                Some(join_mesh(&settings, config, &serving).await?)
            }
            false => None,
        };
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
            let share = settings.share.enable;
            resolver.set_archives(archives.start(
                mesh.as_ref(),
                &resolver,
                share,
                &settings.state.dir,
            ));
        }
        if let Some(spill) = spill {
            resolver.site().keep_on_disk(spill);
        }
        resolver.site().limit_download(settings.site.download.map(|rate| rate.0));
        resolver.limit_from_peers(settings.site.from_peers.map(|rate| rate.0));
        tokio::spawn(power::watch(Arc::downgrade(&resolver), settings.site.clone()));
        for warning in &warnings {
            tracing::warn!("{}", warning.text);
        }
        resolver.set_about(AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            peer_id: mesh.as_ref().map(|mesh| mesh.id().to_string()),
            http_listen: vec![http],
            mesh_listen: mesh.as_ref().map(Mesh::local_addrs).unwrap_or_default(),
            cache: CacheReport { dir: cache_dir, ..CacheReport::default() },
            warnings,
            settings: settings.in_words(),
            ..AgentStatus::default()
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
        let store_dir = store_location(&settings).store_dir;
        self.trust.set(Trust { store_dir, keys: keys.trusted.clone() });
        self.archives.set_trusted(&keys.trusted);
        self.resolver.set_trusted_keys(with(&keys.trusted, &self.host_key));
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

/// The trusted keys and the host's own: what it signed was verified here. It is not among those that peers judge by,
/// nor a reason to share anything.
fn with(trusted: &haulout_nix::KeySet, host_key: &PublicKey) -> haulout_nix::KeySet {
    trusted.iter().chain([host_key]).cloned().collect()
}

/// The store of the settings, or the one nix.conf names, or the machine's.
fn store_location(settings: &Settings) -> StoreLocation {
    match &settings.store.root {
        Some(root) => StoreLocation::chroot(root),
        None => StoreLocation::from_setting(&NixConf::load().store)
            .unwrap_or_else(StoreLocation::system),
    }
}

/// Without a cache the agent still works: it forgets over a restart.
async fn open_cache(settings: &Settings, warnings: &mut Vec<Warning>) -> Option<Cache> {
    let dir = settings.cache.dir.clone();
    let config = CacheConfig { quota_bytes: settings.cache.quota.0, ..CacheConfig::default() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&dir)
            .map_err(|source| OpenError::Io { dir: dir.clone(), source })?;
        Cache::open(&dir, config, UnixTime(now))
    });
    let problem = match opened.await {
        Ok(Ok(cache)) => return Some(cache),
        Ok(Err(error)) => Failure::new("running without a cache").because(error),
        Err(error) => Failure::new("running without a cache").because(error),
    };
    warnings.push(Warning {
        code: "no-cache".to_owned(),
        text: problem.chain(),
        hint: Some("choose another directory with --set cache.dir=DIR".to_owned()),
    });
    None
}

/// Where pieces for neighbours go that do not fit into memory. Without it they are let go of, and fetched once more.
async fn open_spill(settings: &Settings, warnings: &mut Vec<Warning>) -> Option<Spill> {
    let (dir, quota) = (settings.cache.dir.clone(), settings.site.spill.0);
    if quota == 0 {
        return None;
    }
    let open = move || Spill::open(&dir, quota, SEGMENT_BYTES);
    let problem = match tokio::task::spawn_blocking(open).await {
        Ok(Ok(spill)) => return Some(spill),
        Ok(Err(error)) => {
            Failure::new("pieces for neighbours are kept in memory only").because(error)
        }
        Err(error) => Failure::new("pieces for neighbours are kept in memory only").because(error),
    };
    warnings.push(Warning {
        code: "no-spill".to_owned(),
        text: problem.chain(),
        hint: Some("choose another directory with --set cache.dir=DIR".to_owned()),
    });
    None
}

async fn open_store(config: ResolverConfig) -> Outcome<Serving> {
    let database = config.store.db.clone();
    tokio::task::spawn_blocking(move || Serving::open(&config))
        .await
        .context(|| "reading the store was cut off".to_owned())?
        .map_err(|error| {
            Failure::new(format!("cannot use the Nix store's database {}", database.display()))
                .because(error)
                .hint("name a chroot store with --store-root DIR; the database must be readable")
        })
}

/// Leaves the host's key where nix.conf includes it from; without it only archives' paths are not believed.
fn tell_nix(dir: &Path, key: &PublicKey, warnings: &mut Vec<Warning>) {
    if let Err(error) = host_key::write_nix_conf(dir, key) {
        warnings.push(Warning {
            code: "no-nix-conf".to_owned(),
            text: format!("cannot write settings for Nix to {}: {error}", dir.display()),
            hint: Some(
                "systemd's RuntimeDirectory= must name a directory of the agent's".to_owned(),
            ),
        });
    }
}

async fn join_mesh(settings: &Settings, config: MeshConfig, serving: &Serving) -> Outcome<Mesh> {
    let joining = || format!("cannot join the mesh on UDP port {}", settings.mesh.port);
    Mesh::start(config, serving.serve()).await.map_err(|error| {
        Failure::new(joining())
            .because(error)
            .hint("choose another port with --set mesh.port=N, or 0 for any free one")
    })
}

async fn mesh_config(
    settings: &Settings,
    identity: Identity,
    warnings: &mut Vec<Warning>,
) -> Outcome<MeshConfig> {
    let mesh = &settings.mesh;
    let secret = match &mesh.secret_file {
        None => None,
        Some(path) => {
            let text = read_small_file(path, "mesh.secret_file")?;
            let secret = MeshSecret::derive(text.trim().as_bytes())
                .context(|| format!("{} does not hold a usable secret", path.display()))?;
            Some(secret)
        }
    };
    Ok(MeshConfig {
        listen: vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), mesh.port)],
        mdns: mesh.mdns,
        interfaces: networks::interfaces(settings),
        static_peers: static_peers(settings, warnings).await,
        secret,
        strangers: match mesh.strangers {
            StrangerPolicy::Nothing => Strangers::Ignore,
            StrangerPolicy::Public => Strangers::Public,
        },
        upload: settings.site.upload.map(|rate| rate.0),
        upload_per_peer: settings.site.upload_per_peer.map(|rate| rate.0),
        ..MeshConfig::new(identity)
    })
}

fn identity(settings: &Settings) -> Outcome<Identity> {
    let dir = &settings.state.dir;
    std::fs::create_dir_all(dir).map_err(|error| {
        Failure::new(format!("cannot make the state directory {}", dir.display()))
            .because(error)
            .hint("choose another one with --state-dir DIR")
    })?;
    let path = dir.join("identity.key");
    Identity::load_or_create(&path)
        .context(|| format!("cannot use the identity in {}", path.display()))
}

/// Names are looked up once, at the start; one that has no address is no
/// reason not to start.
async fn static_peers(settings: &Settings, warnings: &mut Vec<Warning>) -> Vec<StaticPeer> {
    let mut peers = Vec::new();
    for peer in &settings.mesh.peers {
        let found = tokio::net::lookup_host(&peer.host).await;
        match found.map(|mut addresses| addresses.next()) {
            Ok(Some(addr)) => peers.push(StaticPeer { addr, key: peer.id }),
            Ok(None) | Err(_) => warnings.push(Warning {
                code: "peer-without-address".to_owned(),
                text: format!("the peer {peer} has no address and is left out"),
                hint: Some("check `peers` in [mesh]; names are looked up at the start".to_owned()),
            }),
        }
    }
    peers
}
