//! Questions to programs on the system's D-Bus, asked through systemd's `busctl`: a small process now and then instead of a
//! D-Bus library. Nobody is started by being asked. Everything here blocks for as long as [`ASK_LIMIT`].

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// How long `busctl` may take.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A property of an object; `None` if there is no such service, object or property, or not of this type.
pub(super) fn property<T: DeserializeOwned>(
    service: &str,
    object: &str,
    interface: &str,
    name: &str,
) -> Option<T> {
    let get = ["org.freedesktop.DBus.Properties", "Get", "ss", interface, name];
    call::<Said<T>>(service, object, &get).map(|variant| variant.data)
}

/// What a method with one result says: `call` is its interface, its name, and if it takes arguments their types and values.
pub(super) fn call<T: DeserializeOwned>(service: &str, object: &str, call: &[&str]) -> Option<T> {
    let arguments = [&["call", service, object][..], call].concat();
    first(&busctl(&arguments)?)
}

/// `{"type":...,"data":...}`.
#[derive(serde::Deserialize)]
struct Said<T> {
    data: T,
}

/// The only result in what `busctl --json=short call` says.
fn first<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice::<Said<(T,)>>(json).ok().map(|said| said.data.0)
}

/// Runs `busctl`; `None` when it failed or took too long.
fn busctl(arguments: &[&str]) -> Option<Vec<u8>> {
    let mut child = Command::new("busctl")
        .args(["--system", "--json=short", "--auto-start=no"])
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

    /// As busctl of systemd 252 prints a method's answer: an object's path, and properties.
    #[test]
    fn busctls_json_is_understood() {
        let answer = br#"{"type":"o","data":["/org/freedesktop/NetworkManager/Devices/3"]}"#;
        assert_eq!(first::<String>(answer).unwrap(), "/org/freedesktop/NetworkManager/Devices/3");
        let property = br#"{"type":"v","data":[{"type":"ay","data":[79,107]}]}"#;
        assert_eq!(first::<Said<Vec<u8>>>(property).unwrap().data, b"Ok");
        let property = br#"{"type":"v","data":[{"type":"b","data":true}]}"#;
        assert!(first::<Said<bool>>(property).unwrap().data);
        assert!(first::<Said<u32>>(property).is_none(), "another type");
        assert!(first::<Said<bool>>(b"rubbish").is_none());
    }
}
