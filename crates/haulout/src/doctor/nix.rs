//! Whether this machine's Nix asks the agent, and believes it.

use haulout_gateway::api::AgentStatus;
use haulout_nix::conf::NixConf;

use super::Finding;

/// Looks at nix.conf as this process sees it. `status` is missing when the agent does not answer.
pub(super) fn configured(
    conf: &NixConf,
    agent: &str,
    status: Option<&AgentStatus>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let url = format!("http://{agent}");
    let asks = conf.substituters.iter().any(|one| {
        let one = one.split('?').next().unwrap_or_default().trim_end_matches('/');
        one == url
            || (agent.starts_with("127.0.0.1:") && one == url.replace("127.0.0.1", "localhost"))
    });
    findings.push(if asks {
        Finding::good("substituter", format!("nix.conf names {url} as a substituter"))
    } else {
        Finding::bad(
            "substituter",
            format!("nix.conf does not name {url} as a substituter, so Nix does not ask the agent"),
            format!("add: extra-substituters = {url} (and restart nix-daemon); on NixOS, services.haulout.configureNix does it"),
        )
    });
    if conf.trusted_public_keys.is_empty() {
        findings.push(Finding::bad(
            "keys",
            "no key is trusted, so no substitute is ever accepted",
            "set trusted-public-keys in nix.conf",
        ));
    }
    if !conf.require_sigs {
        findings.push(Finding::warning(
            "require-sigs",
            "require-sigs is off: Nix takes anything from any substituter (haulout still checks)",
            "set require-sigs = true in nix.conf",
        ));
    }
    let archives = status.is_some_and(|status| !status.archives.is_empty());
    if let Some(id) = status.and_then(|status| status.peer_id.as_deref()) {
        let name = format!("haulout-host-{}", id.chars().take(16).collect::<String>());
        findings.push(if conf.trusted_public_keys.has_name(&name) {
            Finding::good("host-key", "Nix trusts the key of this machine's agent")
        } else {
            let make = if archives { Finding::bad } else { Finding::warning };
            make(
                "host-key",
                "Nix does not trust the key of this machine's agent: paths proven by an archive alone are not accepted",
                "add the extra-trusted-public-keys line that `haulout up` prints, or `!include /run/haulout/nix.conf`",
            )
        });
    }
    for warning in &conf.warnings {
        findings.push(Finding::warning(
            "nix-conf",
            format!("{}:{}: {}", warning.place, warning.line, warning.what),
            "Nix may read it differently than meant",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn conf(text: &str) -> NixConf {
        NixConf::load_from(std::path::Path::new("/nonexistent"), Some(text))
    }

    fn level(findings: &[Finding], check: &str) -> Option<Level> {
        findings.iter().find(|one| one.check == check).map(|one| one.level)
    }

    #[test]
    fn it_is_seen_whether_nix_asks() {
        let ask =
            |text: &str| level(&configured(&conf(text), "127.0.0.1:5299", None), "substituter");
        assert_eq!(ask(""), Some(Level::Bad));
        assert_eq!(ask("extra-substituters = http://127.0.0.1:5299"), Some(Level::Good));
        assert_eq!(ask("substituters = http://localhost:5299/?priority=10"), Some(Level::Good));
        assert_eq!(ask("substituters = http://127.0.0.1:5298"), Some(Level::Bad));
    }

    #[test]
    fn a_missing_host_key_and_lax_settings_are_warned_about() {
        let status = AgentStatus { peer_id: Some("ab".repeat(32)), ..AgentStatus::default() };
        let found = configured(&conf("require-sigs = false"), "127.0.0.1:5299", Some(&status));
        assert_eq!(level(&found, "host-key"), Some(Level::Warning));
        assert_eq!(level(&found, "require-sigs"), Some(Level::Warning));
        let archives = vec![haulout_gateway::api::SourceReport::default()];
        let asking = AgentStatus { archives, ..status.clone() };
        let found = configured(&conf(""), "127.0.0.1:5299", Some(&asking));
        assert_eq!(level(&found, "host-key"), Some(Level::Bad), "it is needed for archives");
        let key = format!(
            "extra-trusted-public-keys = haulout-host-{}:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
            "ab".repeat(8)
        );
        let found = configured(&conf(&key), "127.0.0.1:5299", Some(&status));
        assert_eq!(level(&found, "host-key"), Some(Level::Good));
    }
}
