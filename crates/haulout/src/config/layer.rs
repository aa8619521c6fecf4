//! From file, environment and flags to [`Settings`].
//!
//! Each source is read into the same all-optional shape, so that each value is
//! checked by the same code and an error can name where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::archive::{ARCHIVES_MAX, Archive};
use super::{
    ByteSize, Cache, CachedNars, Gateway, Http, KnownNetworkText, Log, Mesh, Network, NetworkText,
    PeerAddress, Push, PushWhat, Settings, Share, Site, State, Store, StrangerPolicy, Trust,
    Upstream, UpstreamUrl, Walrus,
};
use crate::error::{Failure, Outcome};

/// A settings file is text that people write; more is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The port of haulout: TCP on loopback for Nix, UDP for the mesh.
pub(crate) const PORT: u16 = 5299;

/// Where a value came from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A settings file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Declares the optional shape of the settings, its merging, and the list of keys.
macro_rules! layer {
    ($($section:ident: $type:ident { $($key:ident: $value:ty,)* })*) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Layer {
            /// Only a file has these: they are no single values.
            archive: Option<Vec<Archive>>,
            $($section: $type,)*
        }

        $(#[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $type { $($key: Option<$value>,)* })*

        impl Layer {
            /// `upper` wins wherever it says anything.
            fn under(self, upper: Self) -> Self {
                Self { archive: upper.archive.or(self.archive), $($section: $type { $($key: upper.$section.$key.or(self.$section.$key),)* },)* }
            }
        }

        /// Every key, as (section, key).
        const KEYS: &[(&str, &str)] = &[$($((stringify!($section), stringify!($key)),)*)*];
    };
}

layer! {
    store: StoreLayer { root: PathBuf, }
    state: StateLayer { dir: PathBuf, }
    cache: CacheLayer { dir: PathBuf, quota: ByteSize, nars: CachedNars, }
    http: HttpLayer { listen: SocketAddr, allow_remote: bool, priority: u32, allowed_hosts: Vec<String>, remote_metrics: bool, }
    mesh: MeshLayer {
        enable: bool, port: u16, mdns: bool, interfaces: Vec<String>, peers: Vec<PeerAddress>,
        secret_file: PathBuf, strangers: StrangerPolicy, signing_key_file: PathBuf,
    }
    network: NetworkLayer { known: Vec<KnownNetworkText>, }
    trust: TrustLayer { keys: Vec<String>, nix_conf: bool, }
    share: ShareLayer { enable: bool, keys: Vec<String>, local_builds: bool, }
    upstream: UpstreamLayer {
        enable: bool, nix_conf: bool, urls: Vec<UpstreamUrl>, neighbours: bool, netrc_file: PathBuf,
    }
    push: PushLayer {
        to: String, what: PushWhat, compression: String, sign_key_files: Vec<PathBuf>,
    }
    gateway: GatewayLayer {
        listen: SocketAddr, tls_cert: PathBuf, tls_key: PathBuf, allow: Vec<NetworkText>,
        readers_file: PathBuf, writers_file: PathBuf, uploads_dir: PathBuf, uploads_quota: ByteSize,
    }
    site: SiteLayer {
        fetch_for_others: bool, on_battery: bool, on_metered: bool, serve_on_battery: bool,
        serve_on_metered: bool, ahead: ByteSize, ahead_rate: ByteSize, download: ByteSize,
        from_peers: ByteSize, upload: ByteSize, upload_per_peer: ByteSize, spill: ByteSize, memory: ByteSize,
    }
    walrus: WalrusLayer { network: String, quota: ByteSize, }
    log: LogLayer { level: String, }
}

/// Reads the settings from `file` (if any), then `environment`, then `flags`
/// (`section.key=value` with the flag's own name for messages).
pub(crate) fn load(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(String, String)],
) -> Outcome<Settings> {
    let mut layer = Layer::default();
    if let Some(path) = file {
        layer = layer.under(read_file(path)?);
    }
    for (section, key) in KEYS {
        let name = variable_name(section, key);
        if let Some(text) = environment.get(&name) {
            layer = layer.under(parse_one(section, key, text, &Origin::Variable(name))?);
        }
    }
    reject_unknown_variables(environment)?;
    for (flag, assignment) in flags {
        layer = layer.under(parse_flag(flag, assignment)?);
    }
    let archives = layer.archive.as_ref().map_or(0, Vec::len);
    if archives > ARCHIVES_MAX {
        return Err(Failure::new(format!("{archives} archives; at most {ARCHIVES_MAX} are asked"))
            .hint("every path that nobody here has is looked up in each of them"));
    }
    Ok(fill_in(layer, environment))
}

fn variable_name(section: &str, key: &str) -> String {
    format!("HAULOUT_{section}_{key}").to_uppercase()
}

/// A mistyped variable would be silently without effect.
fn reject_unknown_variables(environment: &BTreeMap<String, String>) -> Outcome<()> {
    let known: Vec<String> = KEYS.iter().map(|(s, k)| variable_name(s, k)).collect();
    for name in environment.keys().filter(|name| name.starts_with("HAULOUT_")) {
        let reserved = [
            "HAULOUT_CONFIG",
            "HAULOUT_BIN",
            "HAULOUT_NO_SKIPS",
            "HAULOUT_ARCHIVE",
            "HAULOUT_SUI_WALLET",
        ]
        .contains(&name.as_str())
            || name.starts_with("HAULOUT_TEST_");
        if !reserved && !known.contains(name) {
            return Err(Failure::new(format!("variable {name} is not a setting"))
                .hint(nearest_hint(name, known.iter().map(String::as_str))));
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Outcome<Layer> {
    let origin = Origin::File(path.to_owned());
    let cannot = |error| {
        Failure::new(format!("cannot read settings {}", path.display()))
            .because(error)
            .hint("give the right file with --config FILE, or leave it out to use the defaults")
    };
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Failure::new(format!(
            "settings {} are {size} bytes long; at most {FILE_BYTES_MAX} are read",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    parse(&text, &origin)
}

fn parse(text: &str, origin: &Origin) -> Outcome<Layer> {
    toml::from_str(text).map_err(|error| explain(text, &error, origin))
}

/// One `section.key` with a value as TOML, as a bare string, or as the only
/// element of a list; the error is that of the first reading.
fn parse_one(section: &str, key: &str, value: &str, origin: &Origin) -> Outcome<Layer> {
    let quoted = toml::Value::String(value.to_owned()).to_string();
    let literal =
        value.parse::<toml::Value>().map_or_else(|_| quoted.clone(), |_| value.to_owned());
    let read = |literal: &str| parse(&format!("[{section}]\n{key} = {literal}\n"), origin);
    let first = read(&literal);
    if first.is_ok() {
        return first;
    }
    if let Ok(layer) = read(&quoted) {
        return Ok(layer);
    }
    let only = read(&format!("[{quoted}]"));
    let wants_list =
        first.as_ref().is_err_and(|failure| failure.report().contains("expected a sequence"));
    if only.is_ok() || wants_list { only } else { first }
}

fn parse_flag(flag: &str, assignment: &str) -> Outcome<Layer> {
    let origin = Origin::Flag(flag.to_owned());
    let parts = assignment
        .split_once('=')
        .and_then(|(name, value)| name.split_once('.').map(|(s, k)| (s, k, value)));
    let Some((section, key, value)) = parts else {
        return Err(Failure::new(format!("{origin}: {assignment:?} is not SECTION.KEY=VALUE"))
            .hint("for example --set mesh.mdns=false"));
    };
    if !KEYS.contains(&(section, key)) {
        let names: Vec<String> = KEYS.iter().map(|(s, k)| format!("{s}.{k}")).collect();
        let wanted = format!("{section}.{key}");
        return Err(Failure::new(format!("{origin}: there is no setting {wanted}"))
            .hint(nearest_hint(&wanted, names.iter().map(String::as_str))));
    }
    parse_one(section, key, value, &origin)
}

/// Line, reason and hint for what TOML or a value's own syntax refused.
fn explain(text: &str, error: &toml::de::Error, origin: &Origin) -> Failure {
    let place = match (origin, error.span()) {
        (Origin::File(path), Some(span)) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            format!("{}:{line}", path.display())
        }
        _ => origin.to_string(),
    };
    let message = error.message();
    let failure = Failure::new(format!("{place}: {message}"));
    match unknown_name(message) {
        Some((name, allowed)) => failure.hint(nearest_hint(name, allowed.iter().copied())),
        None => failure.hint("`haulout up --check` prints every setting with its value"),
    }
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    if !message.starts_with("unknown field") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    Some((names.next()?, names.collect()))
}

fn nearest_hint<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let nearest = names.iter().min_by_key(|name| distance(wanted, name));
    match nearest {
        Some(name) if distance(wanted, name) <= wanted.len() / 3 + 1 => {
            format!("did you mean {name}?")
        }
        _ => format!("known here: {}", names.join(", ")),
    }
}

/// Levenshtein distance, for short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn fill_in(layer: Layer, environment: &BTreeMap<String, String>) -> Settings {
    let Layer {
        archive,
        store,
        state,
        cache,
        http,
        mesh,
        network,
        trust,
        share,
        upstream,
        push,
        gateway,
        site,
        walrus,
        log,
    } = layer;
    let mut archive = archive.unwrap_or_default();
    archive.sort_by_key(|one| one.priority);
    let loopback = SocketAddr::from(([127, 0, 0, 1], PORT));
    Settings {
        archive,
        store: Store { root: store.root },
        state: State { dir: state.dir.unwrap_or_else(|| standard_dir(environment, &STATE_DIR)) },
        cache: Cache {
            dir: cache.dir.unwrap_or_else(|| standard_dir(environment, &CACHE_DIR)),
            quota: cache.quota.unwrap_or(ByteSize(4 << 30)),
            nars: cache.nars.unwrap_or(CachedNars::Auto),
        },
        http: Http {
            listen: http.listen.unwrap_or(loopback),
            allow_remote: http.allow_remote.unwrap_or(false),
            priority: http.priority.unwrap_or(30),
            allowed_hosts: http.allowed_hosts.unwrap_or_default(),
            remote_metrics: http.remote_metrics.unwrap_or(false),
        },
        mesh: Mesh {
            enable: mesh.enable.unwrap_or(true),
            port: mesh.port.unwrap_or(PORT),
            mdns: mesh.mdns.unwrap_or(true),
            interfaces: mesh.interfaces.unwrap_or_default(),
            peers: mesh.peers.unwrap_or_default(),
            secret_file: mesh.secret_file,
            strangers: mesh.strangers.unwrap_or(StrangerPolicy::Nothing),
            signing_key_file: mesh.signing_key_file,
        },
        network: Network { known: network.known.unwrap_or_default() },
        trust: Trust {
            keys: trust.keys.unwrap_or_default(),
            nix_conf: trust.nix_conf.unwrap_or(true),
        },
        share: Share {
            enable: share.enable.unwrap_or(true),
            keys: share.keys,
            local_builds: share.local_builds.unwrap_or(false),
        },
        upstream: Upstream {
            enable: upstream.enable.unwrap_or(true),
            // Who does not go by the keys of nix.conf would not believe its caches either.
            nix_conf: upstream.nix_conf.or(trust.nix_conf).unwrap_or(true),
            urls: upstream.urls.unwrap_or_default(),
            neighbours: upstream.neighbours.unwrap_or(true),
            netrc_file: upstream.netrc_file,
        },
        push: Push {
            to: push.to,
            what: push.what.unwrap_or(PushWhat::Local),
            compression: push.compression,
            sign_key_files: push.sign_key_files.unwrap_or_default(),
        },
        gateway: Gateway {
            listen: gateway.listen,
            tls_cert: gateway.tls_cert,
            tls_key: gateway.tls_key,
            allow: gateway.allow.unwrap_or_default().into_iter().map(|text| text.0).collect(),
            readers_file: gateway.readers_file,
            writers_file: gateway.writers_file,
            uploads_dir: gateway.uploads_dir,
            uploads_quota: gateway.uploads_quota.unwrap_or(ByteSize(20 << 30)),
        },
        site: Site {
            fetch_for_others: site.fetch_for_others.unwrap_or(true),
            on_battery: site.on_battery.unwrap_or(false),
            on_metered: site.on_metered.unwrap_or(false),
            serve_on_battery: site.serve_on_battery.unwrap_or(true),
            serve_on_metered: site.serve_on_metered.unwrap_or(true),
            ahead_rate: site.ahead_rate,
            from_peers: site.from_peers,
            download: site.download,
            upload: site.upload,
            upload_per_peer: site.upload_per_peer,
            ahead: site.ahead.unwrap_or(ByteSize(haulout_resolver::site::AHEAD_BYTES)),
            memory: site.memory.unwrap_or(ByteSize(haulout_resolver::site::MEMORY_BYTES)),
            spill: site.spill.unwrap_or(ByteSize(1 << 30)),
        },
        walrus: Walrus {
            network: walrus.network,
            quota: walrus.quota.unwrap_or(ByteSize(4 << 30)),
        },
        log: Log { level: log.level.unwrap_or_else(|| "info".to_owned()) },
    }
}

/// The places a kind of directory may be at, first choice first: what systemd
/// gives, then the machine's (for root), then the user's.
struct StandardDir {
    systemd: &'static str,
    root: &'static str,
    xdg: &'static str,
    home: &'static str,
}

const STATE_DIR: StandardDir = StandardDir {
    systemd: "STATE_DIRECTORY",
    root: "/var/lib/haulout",
    xdg: "XDG_STATE_HOME",
    home: ".local/state",
};
const CACHE_DIR: StandardDir = StandardDir {
    systemd: "CACHE_DIRECTORY",
    root: "/var/cache/haulout",
    xdg: "XDG_CACHE_HOME",
    home: ".cache",
};

fn standard_dir(environment: &BTreeMap<String, String>, dir: &StandardDir) -> PathBuf {
    if let Some(given) = environment.get(dir.systemd).filter(|v| !v.is_empty()) {
        // systemd separates several directories with colons; the first is ours.
        return PathBuf::from(given.split(':').next().unwrap_or(given));
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(dir.root);
    }
    let base = environment.get(dir.xdg).filter(|v| v.starts_with('/')).map_or_else(
        || Path::new(environment.get("HOME").map_or("/", String::as_str)).join(dir.home),
        PathBuf::from,
    );
    base.join("haulout")
}
