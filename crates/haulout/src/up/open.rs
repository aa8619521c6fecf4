//! What the agent opens when it starts: its identity, the store, the cache.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use haulout_cache::{Cache, CacheConfig, OpenError, Spill, UnixTime};
use haulout_gateway::api::Warning;
use haulout_mesh::Identity;
use haulout_nix::conf::NixConf;
use haulout_nix::db::StoreLocation;
use haulout_nix::{KeySet, PublicKey};
use haulout_resolver::site::AheadLimits;
use haulout_resolver::{KeepNars, ResolverConfig, Serving};
use haulout_swarm::site::SEGMENT_BYTES;

use super::host_key;
use crate::config::{CachedNars, Settings};
use crate::error::{Context, Failure, Outcome};

/// What the settings say to the resolver.
pub(super) fn resolver_config(settings: &Settings, trusted: KeySet) -> ResolverConfig {
    ResolverConfig {
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
        ..ResolverConfig::new(store_location(settings), trusted)
    }
}

/// The trusted keys and the host's own: what it signed was verified here. It is not among those that peers judge by,
/// nor a reason to share anything.
pub(super) fn with(trusted: &KeySet, host_key: &PublicKey) -> KeySet {
    trusted.iter().chain([host_key]).cloned().collect()
}

/// The store of the settings, or the one nix.conf names, or the machine's.
pub(super) fn store_location(settings: &Settings) -> StoreLocation {
    match &settings.store.root {
        Some(root) => StoreLocation::chroot(root),
        None => StoreLocation::from_setting(&NixConf::load().store)
            .unwrap_or_else(StoreLocation::system),
    }
}

pub(super) fn identity(settings: &Settings) -> Outcome<Identity> {
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

pub(super) async fn store(config: ResolverConfig) -> Outcome<Serving> {
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

/// Without a cache the agent still works: it forgets over a restart.
pub(super) async fn cache(settings: &Settings, warnings: &mut Vec<Warning>) -> Option<Cache> {
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
pub(super) async fn spill(settings: &Settings, warnings: &mut Vec<Warning>) -> Option<Spill> {
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

/// Leaves the host's key where nix.conf includes it from; without it only archives' paths are not believed.
pub(super) fn tell_nix(dir: &Path, key: &PublicKey, warnings: &mut Vec<Warning>) {
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
