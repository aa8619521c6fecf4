//! The Walrus network that this agent reads blobs from, for itself and for its neighbours.

use std::sync::Arc;

use haulout_cache::SliverCache;
use haulout_gateway::api::Warning;
use haulout_resolver::Resolver;
use haulout_resolver::site::walrus::WalrusConfig;

use crate::config::Settings;
use crate::error::Failure;
use crate::walrus::Network;

/// Below `cache.dir`, beside the NARs.
const SLIVERS: &str = "slivers";

/// Joins the network of the settings, or else `of_archive`, that of an archive. One that cannot be used is a warning, not a failure: the agent is of use without it.
pub(crate) async fn join(
    settings: &Settings,
    resolver: &Resolver,
    of_archive: Option<&str>,
    has_cache: bool,
    warnings: &mut Vec<Warning>,
) {
    let name = settings.walrus.network.as_deref().or(of_archive);
    let Some(name) = name.map(str::to_owned) else { return };
    let network = match Network::remembered(&name, &settings.state.dir) {
        Ok(network) => network,
        Err(failure) => {
            warnings.push(Warning {
                code: "walrus".to_owned(),
                text: format!("blobs cannot be read: {}", failure.chain()),
                hint: Some("see `network` in [walrus] of the settings".to_owned()),
            });
            return;
        }
    };
    let cache = match has_cache && settings.walrus.quota.0 > 0 {
        true => open_cache(settings, warnings).await,
        false => None,
    };
    resolver.set_walrus(WalrusConfig {
        name,
        network: network.identity,
        direct: network.client,
        cache: cache.map(Arc::new),
        share: settings.share.enable,
    });
}

async fn open_cache(settings: &Settings, warnings: &mut Vec<Warning>) -> Option<SliverCache> {
    let (dir, quota) = (settings.cache.dir.join(SLIVERS), settings.walrus.quota.0);
    let shown = dir.display().to_string();
    let opened = tokio::task::spawn_blocking(move || SliverCache::open(&dir, quota)).await;
    let problem = match opened {
        Ok(Ok(cache)) => return Some(cache),
        Ok(Err(error)) => Failure::new(format!("no slivers are kept in {shown}")).because(error),
        Err(error) => Failure::new(format!("no slivers are kept in {shown}")).because(error),
    };
    warnings.push(Warning {
        code: "no-sliver-cache".to_owned(),
        text: problem.chain(),
        hint: Some("choose another directory with --set cache.dir=DIR".to_owned()),
    });
    None
}
