//! Whether a packet filter on this machine stands in the way. Only root may see its rules.

use std::process::Command;

use super::Finding;

/// The ports that must be let in.
const PORTS: [&str; 2] = ["5353", "5299"];

/// Looks at nftables' and iptables' rules, where they can be seen.
pub(super) fn examine() -> Vec<Finding> {
    let listings: Vec<String> = [&["nft", "list", "ruleset"][..], &["iptables-save"][..]]
        .into_iter()
        .filter_map(listing)
        .collect();
    if listings.is_empty() {
        let why = if rustix::process::geteuid().is_root() {
            "the firewall's rules cannot be seen: neither `nft` nor `iptables-save` works here"
        } else {
            "the firewall's rules cannot be seen (run it as root to have them looked at)"
        };
        return vec![Finding::unknown("firewall", why)];
    }
    vec![judge(&listings.join("\n"))]
}

fn listing(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A firewall that drops by default must name the ports. A guess: rules can say it in many ways.
fn judge(rules: &str) -> Finding {
    let drops = rules.contains("hook input") && rules.contains("policy drop")
        || rules.contains(":INPUT DROP")
        // NixOS: its own chain refuses what nothing accepted.
        || rules.contains("nixos-fw-log-refuse")
        || rules.contains("chain input") && rules.contains("reject");
    let missing: Vec<&str> = PORTS.into_iter().filter(|port| !names(rules, port)).collect();
    match (drops, missing.as_slice()) {
        (false, _) => {
            Finding::good("firewall", "no firewall of this machine's drops packets by default")
        }
        (true, []) => Finding::good("firewall", "the firewall names UDP ports 5353 and 5299"),
        (true, missing) => Finding::bad(
            "firewall",
            format!(
                "the firewall drops by default and does not name UDP port {}",
                missing.join(" and ")
            ),
            "let UDP ports 5353 and 5299 in; on NixOS: services.haulout.openFirewall = true",
        ),
    }
}

/// Whether the number stands in the rules by itself.
fn names(rules: &str, port: &str) -> bool {
    rules.split(|c: char| !c.is_ascii_digit()).any(|number| number == port)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_dropping_firewall_must_name_the_ports() {
        let nft = "table inet filter {\n chain input {\n type filter hook input priority 0; policy drop;\n";
        assert_eq!(judge("").level, Level::Good);
        assert_eq!(judge(nft).level, Level::Bad);
        assert_eq!(judge(&format!("{nft} udp dport {{ 5299, 5353 }} accept\n")).level, Level::Good);
        assert!(
            judge(&format!("{nft} udp dport 15299 accept udp dport 5353 accept"))
                .text
                .ends_with("5299")
        );
        let nixos = "-A nixos-fw -p udp -m udp --dport 5353 -j nixos-fw-accept\n-A nixos-fw -j nixos-fw-log-refuse";
        assert!(judge(nixos).text.ends_with("5299"));
        assert_eq!(judge(":INPUT DROP [0:0]").level, Level::Bad);
    }
}
