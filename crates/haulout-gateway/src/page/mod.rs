//! The page at `/`: what the agent does, for people.
//!
//! The page is complete HTML without any script; where scripts run, the sections that change are sent again as
//! server-sent events. Everything is made here, from the same reports as the control interface, and escaped in one place
//! (`html`), so neither a hostile peer's name nor a hostile page elsewhere can do anything with it: strict
//! Content-Security-Policy, no inline scripts or styles, nothing from other hosts.

mod html;
mod render;

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::api::{AgentStatus, PeersReport};

/// The policy of the page: only what this agent serves, and no frames, forms or bases.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The style sheet at `/page.css`.
pub(crate) const STYLE: &str = include_str!("page.css");
/// The script at `/page.js`.
pub(crate) const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub(crate) fn page(status: &AgentStatus, peers: &PeersReport) -> String {
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>haulout</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"stylesheet\" href=\"/page.css\">\n<script src=\"/page.js\" defer></script>\n</head>\n<body>\n\
         <header><h1>haulout</h1><p id=\"live\" role=\"status\">as of the loading of this page</p></header>\n<main>\n",
    );
    for section in render::sections(status, peers) {
        let _ = writeln!(
            html,
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\"><h2 id=\"{id}-title\">{}</h2><div class=\"body\">{}</div></section>",
            section.title,
            section.html,
            id = section.id,
        );
    }
    html.push_str(
        "</main>\n<footer>For programs: <a href=\"/api/v1/status\">status</a>, <a href=\"/api/v1/peers\">peers</a>, \
         <a href=\"/metrics\">metrics</a>. On the command line: <code>haulout top</code>, <code>haulout why PATH</code>, \
         <code>haulout doctor</code>.</footer>\n</body>\n</html>\n",
    );
    html
}

/// What one reader of the events has seen, so that only changes are sent.
#[derive(Default)]
pub(crate) struct Seen(HashMap<&'static str, u64>);

impl Seen {
    /// The events for the sections that changed since the last call; a comment when nothing did, so that a dead
    /// connection is noticed.
    pub(crate) fn events(&mut self, status: &AgentStatus, peers: &PeersReport) -> String {
        let mut text = String::new();
        for section in render::sections(status, peers) {
            let mut hasher = DefaultHasher::new();
            section.html.hash(&mut hasher);
            let hash = hasher.finish();
            if self.0.insert(section.id, hash) != Some(hash) {
                // JSON has no raw line ends, which would end an event early.
                let data = serde_json::json!({ "id": section.id, "html": section.html });
                let _ = write!(text, "event: section\ndata: {data}\n\n");
            }
        }
        if text.is_empty() {
            text.push_str(":\n\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let mut seen = Seen::default();
        let mut status = AgentStatus::default();
        let peers = PeersReport::default();
        assert_eq!(seen.events(&status, &peers).matches("event: section").count(), 7);
        assert_eq!(seen.events(&status, &peers), ":\n\n");
        status.saved.today_bytes = 5;
        let events = seen.events(&status, &peers);
        assert_eq!(events.matches("event: section").count(), 1);
        assert!(events.contains("\"id\":\"saved\""));
    }

    #[test]
    fn the_page_stands_without_scripts_and_asks_nobody_else() {
        let html = page(&AgentStatus::default(), &PeersReport::default());
        assert!(html.contains("<section id=\"settings\""));
        for (word, allowed) in [("<script", 1), ("style=", 0), ("http://", 0), ("https://", 0)] {
            assert_eq!(html.matches(word).count(), allowed, "{word}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
