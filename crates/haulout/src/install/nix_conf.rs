//! The lines that make Nix ask the agent, put into nix.conf and taken out again without a trace.

use std::net::SocketAddr;

/// The marks around the lines that are ours.
const BEGIN: &str = "# haulout: begin (`haulout uninstall` takes these lines out)";
const BEGIN_JOINED: &str =
    "# haulout: begin (`haulout uninstall` takes these lines and the line break before them out)";
const END: &str = "# haulout: end";

/// `text` of a nix.conf with our lines at the end; in place of those already there.
pub(super) fn with_agent(text: &str, agent: SocketAddr) -> String {
    let mut text = without_agent(text);
    // nix.conf's last line may lack its end; it must get that back.
    let begin = if text.is_empty() || text.ends_with('\n') {
        BEGIN
    } else {
        text.push('\n');
        BEGIN_JOINED
    };
    let own_fallback = text.lines().any(|line| setting(line) == "fallback");
    text.push_str(&format!(
        "{begin}\n\
         extra-substituters = http://{agent}\n\
         extra-trusted-substituters = http://{agent}\n"
    ));
    if !own_fallback {
        // No build may fail because a substituter did.
        text.push_str("fallback = true\n");
    }
    text.push_str(&format!("!include /run/haulout/nix.conf\n{END}\n"));
    text
}

/// `text` without our lines: to the byte what it was before [`with_agent`].
pub(super) fn without_agent(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => inside = true,
            BEGIN_JOINED => {
                inside = true;
                kept.truncate(kept.strip_suffix('\n').unwrap_or(&kept).len());
            }
            END if inside => inside = false,
            _ if inside => {}
            _ => kept.push_str(line),
        }
    }
    kept
}

/// Whether our lines are in it.
pub(super) fn has_agent(text: &str) -> bool {
    text.lines().any(|line| [BEGIN, BEGIN_JOINED].contains(&line.trim_end()))
}

/// The name a line of nix.conf sets; empty for comments.
fn setting(line: &str) -> &str {
    let line = line.split('#').next().unwrap_or_default();
    line.split('=').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agent() -> SocketAddr {
        "127.0.0.1:5299".parse().unwrap()
    }

    #[test]
    fn a_choice_of_the_user_stays() {
        let text = with_agent("fallback = false # mine\n", agent());
        assert!(!text.contains("fallback = true") && text.starts_with("fallback = false # mine\n"));
        assert!(with_agent("# fallback = false\n", agent()).contains("\nfallback = true\n"));
    }

    #[test]
    fn doing_it_again_changes_nothing_and_a_new_port_replaces_the_old_one() {
        let once = with_agent("max-jobs = 4", agent());
        assert_eq!(with_agent(&once, agent()), once);
        let moved = with_agent(&once, "127.0.0.1:6000".parse().unwrap());
        assert!(moved.contains("6000") && !moved.contains("5299"));
        assert!(has_agent(&moved) && !has_agent("max-jobs = 4"));
    }

    #[test]
    fn what_was_written_behind_our_lines_stays() {
        let text = with_agent("a = 1\n", agent()) + "b = 2\n";
        assert_eq!(without_agent(&text), "a = 1\nb = 2\n");
    }

    proptest! {
        #[test]
        fn taking_out_gives_back_every_byte(text in "([a-z=# ]{0,6}\n?){0,6}") {
            prop_assert_eq!(without_agent(&with_agent(&text, agent())), text);
        }
    }
}
