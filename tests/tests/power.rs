//! Battery and metered links as a real D-Bus tells of them: such a machine does not fetch for others.

use std::time::Duration;

use system_tests::skip::{self, Tool};
use system_tests::{Agent, AgentSpec, Bus, FIND_LIMIT, Host, Lab, Value, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// The agent's own words on what it does for others; `None` as long as it does everything.
fn manners(agent: &mut Agent<'_>) -> Option<String> {
    let log = agent.process().log();
    let said = log.lines().rev().find(|line| line.contains("fetching for others:"));
    said.map(|line| line[line.find("fetching for others:").unwrap_or(0)..].to_owned())
}

fn start<'lab>(host: &'lab Host, bus: &Bus, settings: &[(&'static str, &str)]) -> Agent<'lab> {
    let spec = AgentSpec::new(&host.dir().join("empty"), &[])
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    Agent::start(host, &settings.iter().fold(spec, |spec, (name, value)| spec.set(name, *value)))
}

#[test]
fn upower_and_networkmanager_decide_who_fetches_for_others() {
    if !skip::have(&[Tool::Dbus]) {
        return;
    }
    let Some(lab) = Lab::new(5) else { return };
    let upower = "org.freedesktop.UPower";
    let manager = "org.freedesktop.NetworkManager";
    // What the bus says, what the settings add, and what comes of it.
    type Case<'a> =
        (&'a [(&'a str, &'a str, Value)], &'a [(&'static str, &'a str)], Option<&'a str>);
    let plugged: &[(&str, &str, Value)] =
        &[(upower, "OnBattery", Value::Bool(false)), (manager, "Metered", Value::U32(4))];
    let battery: &[(&str, &str, Value)] = &[(upower, "OnBattery", Value::Bool(true))];
    let metered: &[(&str, &str, Value)] = &[(manager, "Metered", Value::U32(3))];
    let cases: [Case<'_>; 5] = [
        (plugged, &[], None),
        (battery, &[], Some("fetching for others: false, giving to others: true")),
        (metered, &[], Some("fetching for others: false, giving to others: true")),
        (battery, &[("site.on_battery", "true")], None),
        (
            metered,
            &[("site.on_metered", "true"), ("site.serve_on_metered", "false")],
            Some("fetching for others: true, giving to others: false"),
        ),
    ];
    let mut agents = Vec::new();
    for ((says, settings, _), host) in cases.iter().zip(lab.hosts()) {
        let bus = Bus::start(host);
        for (service, property, value) in *says {
            let _ = bus.serve(service, &[(property, value.clone())]);
        }
        agents.push((start(host, &bus, settings), bus));
    }
    for (agent, _) in &agents {
        agent.wait_for_peers(cases.len() - 1, FIND_LIMIT);
    }
    for ((_, settings, expected), (agent, bus)) in cases.iter().zip(&mut agents) {
        println!("{settings:?}: {expected:?}");
        match expected {
            Some(words) => assert!(
                wait_until(LIMIT, || manners(agent).is_some_and(|said| said.contains(words))),
                "{settings:?}: {:?}\n{}",
                manners(agent),
                bus.log()
            ),
            // The others have been told by now, so this one was, too.
            None => assert_eq!(manners(agent), None, "{settings:?}"),
        }
    }
}
