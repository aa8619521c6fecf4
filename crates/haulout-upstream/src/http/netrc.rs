//! Passwords for caches, from the file that Nix (through curl) takes them from.

use std::path::Path;

use data_encoding::BASE64;
use hyper::header::HeaderValue;

use crate::address::Login;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The login for `host` in the netrc file; `None` when there is no such file or no entry.
pub(crate) fn login(file: &Path, host: &str) -> Option<Login> {
    let size = std::fs::metadata(file).ok().filter(|m| m.is_file())?.len();
    if size > FILE_BYTES_MAX {
        tracing::warn!(file = %file.display(), "netrc file is too large and not read");
        return None;
    }
    match std::fs::read_to_string(file) {
        Ok(text) => find(&text, host),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read the netrc file");
            None
        }
    }
}

/// The entry for `host`, else the `default` entry.
fn find(text: &str, host: &str) -> Option<Login> {
    // Macros end at a blank line; nobody has them for HTTP, but their words must not count.
    let mut words = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or_default())
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_ascii_whitespace);
    let (mut ours, mut current) = (false, Login { name: String::new(), password: String::new() });
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if ours && !current.password.is_empty() {
                    return Some(current);
                }
                ours = word == "default"
                    || words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                current = Login { name: String::new(), password: String::new() };
            }
            "login" if ours => current.name = words.next()?.to_owned(),
            "password" if ours => current.password = words.next()?.to_owned(),
            "login" | "password" | "account" => drop(words.next()),
            _ => {}
        }
    }
    (ours && !current.password.is_empty()).then_some(current)
}

/// The `Authorization` field for a login.
pub(crate) fn basic(login: &Login) -> Option<HeaderValue> {
    let text = BASE64.encode(format!("{}:{}", login.name, login.password).as_bytes());
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_entry() {
        let text = "# mine\nmachine a.example login me password s3cret\n\
                    machine b.example\n  login you\n  password other\n\
                    default login any password one\n";
        let pair = |host| find(text, host).map(|l| (l.name, l.password));
        assert_eq!(pair("a.example"), Some(("me".into(), "s3cret".into())));
        assert_eq!(pair("B.example"), Some(("you".into(), "other".into())));
        assert_eq!(pair("c.example"), Some(("any".into(), "one".into())));
        assert_eq!(find("machine a login x\nmachine b password y", "a"), None);
        assert_eq!(find("machine a password", "a"), None);
        assert_eq!(find("", "a"), None);
        // Tokens without a name, as some caches give out.
        assert_eq!(find("machine a password t", "a").unwrap().name, "");
    }

    #[test]
    fn the_field_is_what_curl_sends() {
        let login = Login { name: "me".into(), password: "s3cret".into() };
        assert_eq!(basic(&login).unwrap(), "Basic bWU6czNjcmV0");
    }
}
