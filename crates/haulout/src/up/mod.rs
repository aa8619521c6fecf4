//! `haulout up`: the agent.
//!
//! The port opens first and answers 404 at once, because Nix takes a refused
//! connection far worse than "not here"; everything else follows.

mod archives;
mod dbus;
mod door;
pub(crate) mod host_key;
mod keys;
mod mesh;
mod networks;
mod open;
mod outside;
mod parts;
mod power;
mod pushing;
mod savings;
mod systemd;
mod walrus;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use haulout_gateway::{GatewayConfig, LateSubstituter};
use haulout_mesh::networks::Networks;
use haulout_nix::StoreDir;
use haulout_resolver::Resolver;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::UpArgs;
use crate::config::{self, Settings};
use crate::control::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::logging;

use parts::Agent;

/// What the line on standard output begins with that names the substituter's URL.
pub(crate) const READY_LINE: &str = "substituter: ";

/// The settings file that is read when none is named.
const SETTINGS_FILE: &str = "/etc/haulout/haulout.toml";

/// Runs the agent until it is told to end.
pub(crate) fn run(args: &UpArgs) -> Outcome<ExitCode> {
    let settings = read_settings(args)?;
    if args.check {
        print!(
            "{}",
            toml::to_string(&settings).context(|| "cannot print the settings".to_owned())?
        );
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(&settings.log.level)?;
    let listener = listen(&settings)?;
    block_on(serve(args, settings, listener))?;
    Ok(ExitCode::SUCCESS)
}

fn read_settings(args: &UpArgs) -> Outcome<Settings> {
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let standard = PathBuf::from(SETTINGS_FILE);
    let file = args.config.clone().or_else(|| standard.exists().then_some(standard));
    let mut flags = Vec::new();
    let mut flag = |name: &str, key: &str, value: Option<String>| {
        flags.extend(value.map(|value| (name.to_owned(), format!("{key}={value}"))));
    };
    let text =
        |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    flag("--store-root", "store.root", text(&args.store_root));
    flag("--state-dir", "state.dir", text(&args.state_dir));
    flag("--listen", "http.listen", args.listen.clone());
    flags.extend(args.set.iter().map(|set| ("--set".to_owned(), set.clone())));
    config::load(file.as_deref(), &environment, &flags)
}

/// The substituter's port: the one that systemd holds open, or one bound here before anything slow
/// happens.
fn listen(settings: &Settings) -> Outcome<TcpListener> {
    if let Some(listener) = systemd::inherited_listener(settings.http.allow_remote)? {
        return Ok(listener);
    }
    haulout_gateway::bind(settings.http.listen, settings.http.allow_remote).map_err(|error| {
        Failure::new("cannot open the port for Nix")
            .because(error)
            .hint("choose another one with --listen ADDR:PORT, or `listen` in [http]")
    })
}

async fn serve(args: &UpArgs, settings: Settings, listener: TcpListener) -> Outcome<()> {
    let mut signals = Signals::new()?;
    let http = listener.local_addr().context(|| "the port for Nix has no address".to_owned())?;
    let substituter = Arc::new(LateSubstituter::<Resolver>::new(StoreDir::default()));
    let networks = networks::watch(&settings)?;
    let (end, ended) = oneshot::channel::<()>();
    let gateway = gateway_thread(
        "gateway",
        gateway_config(&settings, &networks, None),
        listener,
        Arc::clone(&substituter),
        ended,
    )?;
    let trust = parts::SharedTrust::default();
    let believed = trust.clone();
    let judge = move |info: &haulout_nix::PathInfo| believed.judge(info);
    let (end_door, door_ended) = oneshot::channel::<()>();
    let door = match door::open(&settings, judge)? {
        None => None,
        Some((listener, door)) => {
            let at =
                listener.local_addr().context(|| "the gateway's port has no address".to_owned())?;
            let scheme = if door.tls.is_some() { "https" } else { "http" };
            println!("gateway for other machines: {scheme}://{at}");
            let config = gateway_config(&settings, &networks, Some(door));
            Some(gateway_thread("door", config, listener, Arc::clone(&substituter), door_ended)?)
        }
    };
    let state_dir = settings.state.dir.clone();
    let agent = tokio::select! {
        agent = Agent::start(settings, http, trust, networks) => agent?,
        () = signals.wait_for_end() => return Ok(()),
    };
    substituter.set(agent.resolver());
    agent.announce();
    let mut savings = savings::Savings::load(&state_dir);
    until_end(args, &agent, &mut signals, http, &mut savings).await;
    systemd::stopping();
    savings.update(&agent.resolver());
    savings.save();
    agent.stop().await;
    drop((end, end_door));
    let ended =
        move || [Some(gateway), door].into_iter().flatten().for_each(|thread| drop(thread.join()));
    let _ = tokio::task::spawn_blocking(ended).await;
    Ok(())
}

/// What goes on beside the agent until it is told to end.
async fn until_end(
    args: &UpArgs,
    agent: &Agent,
    signals: &mut Signals,
    http: SocketAddr,
    savings: &mut savings::Savings,
) {
    let status = format!("serving Nix at http://{http}");
    systemd::ready(&status);
    let resolver = agent.resolver();
    let mut savings = pin!(savings.run(&resolver));
    let mut watchdog = pin!(systemd::Watchdog::new(http).run());
    loop {
        let wanted = tokio::select! {
            wanted = signals.next() => wanted,
            () = &mut watchdog => continue,
            () = &mut savings => continue,
        };
        match wanted {
            Wanted::Reload => {
                systemd::reloading();
                reload(args, agent).await;
                systemd::ready(&status);
            }
            Wanted::End => return,
        }
    }
}

fn gateway_config(
    settings: &Settings,
    networks: &Networks,
    door: Option<haulout_gateway::Door>,
) -> GatewayConfig {
    GatewayConfig {
        priority: settings.http.priority,
        host_names: settings.http.allowed_hosts.clone(),
        remote_metrics: settings.http.remote_metrics,
        door,
        local: Some(networks::local_rule(networks)),
        ..GatewayConfig::default()
    }
}

/// The HTTP side on a thread and a runtime of its own: look-ups stay quick
/// while the mesh is busy.
fn gateway_thread(
    name: &str,
    config: GatewayConfig,
    listener: TcpListener,
    substituter: Arc<LateSubstituter<Resolver>>,
    ended: oneshot::Receiver<()>,
) -> Outcome<JoinHandle<()>> {
    let work = move || {
        let served = block_on(async {
            let end = async { ended.await.unwrap_or_default() };
            haulout_gateway::serve(listener, substituter, config, end)
                .await
                .context(|| "the substituter ended".to_owned())
        });
        if let Err(failure) = served {
            tracing::error!("{}", failure.report());
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .context(|| "cannot start a thread".to_owned())
}

/// Reads the settings again; a mistake in them leaves everything as it was.
async fn reload(args: &UpArgs, agent: &Agent) {
    let outcome = match read_settings(args) {
        Ok(settings) => agent.reload(settings).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = outcome {
        tracing::error!("settings not taken over: {}", failure.report());
    }
}

/// What a signal asks for.
enum Wanted {
    Reload,
    End,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Outcome<Self> {
        let listen = |kind| signal(kind).context(|| "cannot wait for signals".to_owned());
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.terminate.recv() => Wanted::End,
        }
    }

    /// While there is nothing to reload yet.
    async fn wait_for_end(&mut self) {
        while !matches!(self.next().await, Wanted::End) {}
    }
}
