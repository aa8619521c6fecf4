//! `haulout doctor`: the usual troubles, looked for one by one, with what to do about each.
//!
//! What can be judged from text (answers of the agent, files, listings) is judged by pure functions; this file only
//! gathers the text.

mod agent;
mod firewall;
mod multicast;
mod nix;

use std::process::ExitCode;

use haulout_gateway::api::{AgentStatus, PeersReport};
use haulout_nix::conf::NixConf;
use serde::Serialize;

use crate::cli::ControlArgs;
use crate::control::{ask, block_on, resolve};
use crate::error::{Context, Outcome};

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Good,
    /// Could not be looked at.
    Unknown,
    /// Works, but not as well as it could.
    Warning,
    /// Something does not work.
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// Stable word to script against.
    check: &'static str,
    level: Level,
    text: String,
    hint: Option<String>,
}

impl Finding {
    fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Good, text: text.into(), hint: None }
    }

    fn unknown(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Unknown, text: text.into(), hint: None }
    }

    fn warning(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, text: text.into(), hint: Some(hint.into()) }
    }

    fn bad(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, level: Level::Bad, text: text.into(), hint: Some(hint.into()) }
    }
}

/// `haulout doctor`; exit code 1 when something does not work.
pub(crate) fn run(args: &ControlArgs) -> Outcome<ExitCode> {
    let findings = examine(args);
    if args.json {
        let text = serde_json::to_string_pretty(&findings)
            .context(|| "cannot print the findings".to_owned())?;
        println!("{text}");
    } else {
        print!("{}", in_words(&findings));
    }
    let worst = findings.iter().map(|finding| finding.level).max();
    Ok(ExitCode::from(u8::from(worst == Some(Level::Bad))))
}

fn examine(args: &ControlArgs) -> Vec<Finding> {
    let conf = NixConf::load();
    let mut findings = Vec::new();
    match reports(args) {
        Ok((status, peers)) => {
            findings.extend(agent::running(&status));
            findings.extend(nix::configured(&conf, &args.agent, Some(&status)));
            findings.extend(agent::peers(&status, &peers));
        }
        Err(failure) => {
            findings.push(Finding::bad(
                "agent",
                failure.chain(),
                "start it: `haulout up`, or `systemctl status haulout` where it is a service",
            ));
            findings.extend(nix::configured(&conf, &args.agent, None));
        }
    }
    findings.extend(multicast::examine());
    findings.extend(firewall::examine());
    findings.extend(agent::clock(std::time::SystemTime::now()));
    findings
}

fn reports(args: &ControlArgs) -> Outcome<(AgentStatus, PeersReport)> {
    let address = resolve(&args.agent)?;
    block_on(async { Ok((ask(address, "status").await?.0, ask(address, "peers").await?.0)) })
}

fn in_words(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "ok     ",
            Level::Unknown => "?      ",
            Level::Warning => "warning",
            Level::Bad => "BAD    ",
        };
        text.push_str(&format!("{mark}  {}\n", finding.text));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("         hint: {hint}\n"));
        }
    }
    text
}
