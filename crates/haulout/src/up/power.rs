//! Whether this machine can afford to fetch for others, and to give to them: not on battery, not over a metered link.
//!
//! UPower says the first, or the kernel where there is no UPower; NetworkManager says the second. What cannot be found out
//! counts as affordable.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use haulout_resolver::Resolver;

use super::dbus;
use super::networks::{NETWORK_MANAGER, NETWORK_MANAGER_PATH};
use crate::config;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The service that knows of batteries, also those of docks and uninterruptible supplies.
const UPOWER: &str = "org.freedesktop.UPower";
/// Its object.
const UPOWER_PATH: &str = "/org/freedesktop/UPower";

/// What a machine does for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manners {
    /// It fetches from outside for them.
    fetches: bool,
    /// It gives them what it has.
    serves: bool,
}

impl Manners {
    fn of(settings: &config::Site, battery: bool, metered: bool) -> Self {
        let may = |on_battery, on_metered| (on_battery || !battery) && (on_metered || !metered);
        Self {
            fetches: settings.fetch_for_others && may(settings.on_battery, settings.on_metered),
            serves: may(settings.serve_on_battery, settings.serve_on_metered),
        }
    }
}

/// Keeps the resolver informed for as long as it lives.
pub(crate) async fn watch(resolver: Weak<Resolver>, settings: config::Site) {
    let plugged = Manners::of(&settings, false, false);
    let mut manners = plugged;
    let ask_battery = Manners::of(&settings, true, false) != plugged;
    let ask_metered = Manners::of(&settings, false, true) != plugged;
    if !ask_battery && !ask_metered {
        return;
    }
    loop {
        let look = move || (ask_battery && on_battery(), ask_metered && is_metered());
        let (battery, metered) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let now = Manners::of(&settings, battery, metered);
        let Some(resolver) = resolver.upgrade() else { return };
        if now.fetches != manners.fetches {
            resolver.site().set_willing(now.fetches);
        }
        if now.serves != manners.serves {
            let resolver = Arc::clone(&resolver);
            let pause = move || resolver.pause_sharing(!now.serves);
            // It ends with the agent; there is nobody to tell.
            let _ = tokio::task::spawn_blocking(pause).await;
        }
        drop(resolver);
        if now != manners {
            tracing::info!(
                battery,
                metered,
                "fetching for others: {}, giving to others: {}",
                now.fetches,
                now.serves
            );
        }
        manners = now;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether this machine runs on battery.
fn on_battery() -> bool {
    dbus::property(UPOWER, UPOWER_PATH, UPOWER, "OnBattery")
        .unwrap_or_else(|| on_battery_by_kernel(Path::new("/sys/class/power_supply")))
}

/// Whether there is a battery and no power from elsewhere.
fn on_battery_by_kernel(supplies: &Path) -> bool {
    let read = |dir: &Path, name: &str| {
        std::fs::read_to_string(dir.join(name))
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let (mut battery, mut mains) = (false, false);
    for supply in std::fs::read_dir(supplies).into_iter().flatten().flatten() {
        let dir = supply.path();
        match read(&dir, "type").as_str() {
            // A mouse has a battery, too; it says so.
            "Battery" => battery |= read(&dir, "scope") != "Device",
            "Mains" | "USB" | "Wireless" => mains |= read(&dir, "online") == "1",
            _ => {}
        }
    }
    battery && !mains
}

/// What NetworkManager says, if there is one.
fn is_metered() -> bool {
    dbus::property(NETWORK_MANAGER, NETWORK_MANAGER_PATH, NETWORK_MANAGER, "Metered")
        .is_some_and(metered)
}

/// NMMetered: 1 yes, 3 probably; 0 unknown, 2 no, 4 probably not.
fn metered(answer: u32) -> bool {
    matches!(answer, 1 | 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(dir: &Path, name: &str, files: &[(&str, &str)]) {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        for (file, text) in files {
            std::fs::write(dir.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn a_laptop_without_its_plug_is_on_battery() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!on_battery_by_kernel(&dir.path().join("none")));
        supply(dir.path(), "mouse", &[("type", "Battery"), ("scope", "Device")]);
        assert!(!on_battery_by_kernel(dir.path()));
        supply(dir.path(), "BAT0", &[("type", "Battery")]);
        assert!(on_battery_by_kernel(dir.path()));
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "0")]);
        assert!(on_battery_by_kernel(dir.path()));
        std::fs::write(dir.path().join("AC/online"), "1\n").unwrap();
        assert!(!on_battery_by_kernel(dir.path()));
    }

    #[test]
    fn what_the_settings_allow() {
        let settings = config::Site {
            fetch_for_others: true,
            on_battery: false,
            on_metered: false,
            serve_on_battery: true,
            serve_on_metered: true,
            download: None,
            from_peers: None,
            ahead_rate: None,
            upload: None,
            upload_per_peer: None,
            ahead: config::ByteSize(0),
            memory: config::ByteSize(0),
            spill: config::ByteSize(0),
        };
        let of = |battery, metered| {
            let manners = Manners::of(&settings, battery, metered);
            (manners.fetches, manners.serves)
        };
        assert_eq!(
            [of(false, false), of(true, false), of(false, true)],
            [(true, true), (false, true), (false, true)]
        );
        let shy = config::Site {
            on_battery: true,
            serve_on_battery: false,
            serve_on_metered: false,
            ..settings.clone()
        };
        let of = |battery, metered| {
            let manners = Manners::of(&shy, battery, metered);
            (manners.fetches, manners.serves)
        };
        assert_eq!(
            [of(false, false), of(true, false), of(false, true)],
            [(true, true), (true, false), (false, false)]
        );
    }

    #[test]
    fn networkmanager_is_understood() {
        assert!(metered(1) && metered(3));
        assert!(!metered(0) && !metered(2) && !metered(4) && !metered(77));
    }
}
