//! The caches outside: which ones, from settings and nix.conf.

use haulout_gateway::api::Warning;
use haulout_mesh::{Neighbour, OnNeighbour};
use haulout_nix::StoreDir;
use haulout_nix::conf::NixConf;
use haulout_upstream::{CacheUrl, Options, Upstreams};

use super::parts::SharedTrust;
use crate::config::Settings;

/// Gathers the caches that this machine asks. A cache that cannot be used is a warning, not a
/// failure: the agent is of use without it.
pub(crate) fn gather(
    settings: &Settings,
    store_dir: StoreDir,
    trust: SharedTrust,
    warnings: &mut Vec<Warning>,
) -> Upstreams {
    let mut options = Options::new(store_dir, move |info| trust.judge(info));
    if let Some(file) = &settings.upstream.netrc_file {
        options.netrc = Some(file.clone());
    }
    let upstreams = Upstreams::new(options);
    if !settings.upstream.enable {
        return upstreams;
    }
    // What others uploaded here is for this machine's Nix and for the mesh too.
    let uploads =
        settings.gateway.uploads_dir.as_ref().filter(|_| settings.gateway.listen.is_some());
    if let Some(url) = uploads.and_then(|dir| format!("file://{}", dir.display()).parse().ok()) {
        add(&upstreams, &url, warnings);
    }
    for url in settings.upstream.urls.iter().map(|upstream| &upstream.url) {
        add(&upstreams, url, warnings);
    }
    if settings.upstream.nix_conf {
        for url in substituters(&NixConf::load()) {
            add(&upstreams, &url, warnings);
        }
    }
    upstreams
}

/// What discovery calls when a cache on the network comes or goes; `None`: not wanted.
pub(crate) fn neighbours(settings: &Settings, upstreams: &Upstreams) -> Option<OnNeighbour> {
    let wanted = settings.upstream.enable && settings.upstream.neighbours;
    // Discovery has threads of its own; requests are made here.
    let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| wanted)?;
    let upstreams = upstreams.clone();
    Some(OnNeighbour::new(move |change| {
        let (addr, here) = match change {
            Neighbour::Appeared(addr) => (addr, true),
            Neighbour::Left(addr) => (addr, false),
        };
        let Ok(url) = format!("http://{addr}").parse::<CacheUrl>() else { return };
        if !here {
            return upstreams.remove_neighbour(&url);
        }
        match upstreams.add_neighbour(&url) {
            Ok(_) => {
                let _inside = runtime.enter();
                upstreams.warm();
            }
            Err(why) => tracing::debug!(%url, why, "a cache on the network is not used"),
        }
    }))
}

/// The substituters of nix.conf that are caches of others. One on this machine may be this agent
/// or one that asks it: they would ask each other in a circle.
fn substituters(conf: &NixConf) -> Vec<CacheUrl> {
    let caches = conf.substituters.iter().filter_map(|text| text.parse::<CacheUrl>().ok());
    caches.filter(|url| !url.is_this_machine()).collect()
}

fn add(upstreams: &Upstreams, url: &CacheUrl, warnings: &mut Vec<Warning>) {
    if let Err(why) = upstreams.add(url) {
        warnings.push(Warning {
            code: "upstream".to_owned(),
            text: format!("the cache {url} is not used: {why}"),
            hint: Some("see [upstream] in the settings".to_owned()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_caches_of_others_are_asked() {
        let conf = "substituters = http://127.0.0.1:5299 https://cache.nixos.org daemon ssh://host\n\
                    extra-substituters = http://localhost:5299 s3://bucket?region=x http://[::1]:5000/ http://10.0.0.9:5000";
        let conf = NixConf::load_from(std::path::Path::new("/nonexistent"), Some(conf));
        let names: Vec<String> = substituters(&conf).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["https://cache.nixos.org", "s3://bucket", "http://10.0.0.9:5000"]);
    }
}
