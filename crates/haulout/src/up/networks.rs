//! The networks this machine is in: which are used, for the parts of the agent and for people.
//!
//! Names of wireless networks come from NetworkManager, asked through systemd's `busctl`, and only if a setting names one.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_gateway::LocalRule;
use haulout_gateway::api::{NetworkReport, Warning};
use haulout_mesh::networks::{NetworkRules, Networks, Snapshot};
use haulout_mesh::{InterfaceRules, Mesh};
use haulout_resolver::Resolver;
use serde::de::DeserializeOwned;

use crate::config::Settings;
use crate::error::{Context, Outcome};

/// How long `busctl` may take.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// What else is worth a warning is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The service and its object.
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
/// See [`NETWORK_MANAGER`].
const NETWORK_MANAGER_PATH: &str = "/org/freedesktop/NetworkManager";

/// Which interfaces discovery may use.
pub(super) fn interfaces(settings: &Settings) -> InterfaceRules {
    InterfaceRules { allow: settings.mesh.interfaces.clone(), ..InterfaceRules::default() }
}

/// Begins to watch the networks.
pub(super) fn watch(settings: &Settings) -> Outcome<Networks> {
    let known = settings.network.known.iter().map(|text| text.0.clone()).collect();
    let rules =
        NetworkRules { interfaces: interfaces(settings), known, ssid_of: Some(Arc::new(ssid_of)) };
    Networks::start(rules).context(|| "cannot watch the network".to_owned())
}

/// On which of this machine's addresses the HTTP side may be asked.
pub(super) fn local_rule(networks: &Networks) -> LocalRule {
    let networks = networks.clone();
    LocalRule::new(move |ip| networks.now().allows_local(ip))
}

/// Keeps the status up to date; ends with the networks.
pub(super) async fn report(networks: Networks, mesh: Option<Mesh>, resolver: Arc<Resolver>) {
    let mut changes = networks.subscribe();
    drop(networks);
    let mut warned = false;
    loop {
        let now = changes.borrow_and_update().clone();
        show(&now, &resolver);
        if let Some(ip) = mesh.as_ref().and_then(Mesh::twin).filter(|_| !warned) {
            warned = true;
            let warning = Warning {
                code: "same-identity".to_owned(),
                text: format!(
                    "the machine at {ip} uses this machine's identity: peers find only one of the two"
                ),
                hint: Some(
                    "delete identity.key in the state directory of the copy and restart its agent"
                        .to_owned(),
                ),
            };
            resolver.change_about(|about| about.warnings.push(warning));
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, changes.changed()).await {
            return;
        }
    }
}

/// Writes the networks into the status.
pub(super) fn show(now: &Snapshot, resolver: &Resolver) {
    resolver.change_about(|about| {
        about.silent = now.is_silent();
        about.networks = in_words(now);
    });
}

/// The interfaces that discovery may use, as people and scripts want to know them.
fn in_words(snapshot: &Snapshot) -> Vec<NetworkReport> {
    let shown = snapshot.interfaces.iter().filter(|one| one.discover);
    shown
        .map(|one| NetworkReport {
            interface: one.name.clone(),
            addresses: one.addrs.iter().map(|(ip, bits)| format!("{ip}/{bits}")).collect(),
            gateway: one.gateway.as_ref().map(|gateway| gateway.ip),
            gateway_mac: one
                .gateway
                .as_ref()
                .and_then(|gateway| gateway.mac)
                .map(|mac| mac.to_string()),
            ssid: one.ssid.clone(),
            used: snapshot.uses(one),
            known_by: one.known_by.clone(),
        })
        .collect()
}

/// The wireless network an interface is in.
fn ssid_of(interface: &str) -> Option<String> {
    let device: (String,) = data(&busctl(&[
        "call",
        NETWORK_MANAGER,
        NETWORK_MANAGER_PATH,
        NETWORK_MANAGER,
        "GetDeviceByIpIface",
        "s",
        interface,
    ])?)?;
    let property = |object: &str, kind: &str, name: &str| {
        busctl(&[
            "get-property",
            NETWORK_MANAGER,
            object,
            &format!("{NETWORK_MANAGER}.{kind}"),
            name,
        ])
    };
    let point: String = data(&property(&device.0, "Device.Wireless", "ActiveAccessPoint")?)?;
    let name: Vec<u8> = data(&property(&point, "AccessPoint", "Ssid")?)?;
    String::from_utf8(name).ok()
}

/// What `busctl --json=short` says: `{"type":...,"data":...}`.
fn data<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    #[derive(serde::Deserialize)]
    struct Said<T> {
        data: T,
    }
    serde_json::from_slice::<Said<T>>(json).ok().map(|said| said.data)
}

/// Runs `busctl`; `None` when it failed or took too long.
fn busctl(arguments: &[&str]) -> Option<Vec<u8>> {
    let mut child = Command::new("busctl")
        .args(["--system", "--json=short"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => {
                return child.wait_with_output().ok().map(|output| output.stdout);
            }
            Ok(None) if started.elapsed() < ASK_LIMIT => std::thread::sleep(ASK_EVERY),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As busctl of systemd 252 prints a method's answer, an object's path and bytes.
    #[test]
    fn busctls_json_is_understood() {
        let answer = br#"{"type":"o","data":["/org/freedesktop/NetworkManager/Devices/3"]}"#;
        assert_eq!(
            data::<(String,)>(answer).unwrap().0,
            "/org/freedesktop/NetworkManager/Devices/3"
        );
        assert_eq!(data::<String>(br#"{"type":"o","data":"/a/b"}"#).unwrap(), "/a/b");
        assert_eq!(data::<Vec<u8>>(br#"{"type":"ay","data":[79,107]}"#).unwrap(), b"Ok");
        assert_eq!(data::<Vec<u8>>(b"rubbish"), None);
    }
}
