//! The networks this machine is in: which are used, for the parts of the agent and for people.
//!
//! Names of wireless networks come from NetworkManager, and only if a setting names one.

use std::sync::Arc;
use std::time::Duration;

use haulout_gateway::LocalRule;
use haulout_gateway::api::{NetworkReport, Warning};
use haulout_mesh::networks::{NetworkRules, Networks, Snapshot};
use haulout_mesh::{InterfaceRules, Mesh};
use haulout_resolver::Resolver;

use super::dbus;
use crate::config::Settings;
use crate::error::{Context, Outcome};

/// What else is worth a warning is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The service and its object.
pub(super) const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
/// See [`NETWORK_MANAGER`].
pub(super) const NETWORK_MANAGER_PATH: &str = "/org/freedesktop/NetworkManager";

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
    let find = [NETWORK_MANAGER, "GetDeviceByIpIface", "s", interface];
    let device: String = dbus::call(NETWORK_MANAGER, NETWORK_MANAGER_PATH, &find)?;
    let wireless = format!("{NETWORK_MANAGER}.Device.Wireless");
    let point: String = dbus::property(NETWORK_MANAGER, &device, &wireless, "ActiveAccessPoint")?;
    let name: Vec<u8> =
        dbus::property(NETWORK_MANAGER, &point, &format!("{NETWORK_MANAGER}.AccessPoint"), "Ssid")?;
    String::from_utf8(name).ok()
}
