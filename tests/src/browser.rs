//! A real browser on a host of the lab, led by its WebDriver (W3C), in the few steps that tests need.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::skip::{self, Tool};
use crate::{Host, Process, wait_until};

/// The driver's port; every host has its own loopback.
const PORT: u16 = 9515;
/// A browser on a busy machine starts slowly.
const PATIENCE: Duration = Duration::from_secs(90);

/// Chromium without a screen.
#[derive(Debug)]
pub struct Browser<'lab> {
    host: &'lab Host,
    session: String,
    _driver: Process,
}

impl<'lab> Browser<'lab> {
    /// Starts one on `host` with more command line arguments. `None`, reported as a skipped test, where there is no
    /// Chromium.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &'lab Host, dir: &Path, more: &[&str]) -> Option<Self> {
        if !skip::have(&[Tool::Chromium]) {
            return None;
        }
        let mut command = host.command("chromedriver");
        command.arg(format!("--port={PORT}"));
        let driver = Process::start("chromedriver", command, &dir.join("chromedriver.log"));
        let mut browser = Self { host, session: String::new(), _driver: driver };
        let up = wait_until(PATIENCE, || browser.ask("GET", "/status", &Value::Null).is_ok());
        assert!(up, "chromedriver does not answer");
        let profile = format!("--user-data-dir={}", dir.join("profile").display());
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-quic",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        arguments.extend(more);
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = browser
            .ask("POST", "/session", &capabilities)
            .unwrap_or_else(|error| panic!("no session: {error}"));
        browser.session = answer["sessionId"].as_str().expect("a session").to_owned();
        Some(browser)
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&self, url: &str) {
        self.step("POST", "/url", &json!({ "url": url }));
    }

    /// The value of a JavaScript expression.
    #[must_use]
    pub fn evaluate(&self, expression: &str) -> Value {
        self.step(
            "POST",
            "/execute/sync",
            &json!({ "script": format!("return {expression}"), "args": [] }),
        )
    }

    /// The whole window as PNG.
    #[must_use]
    pub fn picture(&self) -> Vec<u8> {
        let text = self.step("GET", "/screenshot", &Value::Null);
        data_encoding::BASE64.decode(text.as_str().unwrap_or_default().as_bytes()).expect("base64")
    }

    /// What the browser complained of: failed scripts, requests refused by the page's policy.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.step("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    #[track_caller]
    fn step(&self, method: &str, what: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}{what}", self.session), body)
            .unwrap_or_else(|error| panic!("{method} {what}: {error}"))
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let exchange = || -> std::io::Result<(String, Vec<u8>)> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{text}",
                text.len()
            )?;
            // The driver keeps connections open whatever it is asked.
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head)? > 0 {}
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length:"));
            let mut body = vec![0; length.and_then(|text| text.trim().parse().ok()).unwrap_or(0)];
            stream.read_exact(&mut body)?;
            Ok((head, body))
        };
        let (head, body) = self.host.inside(exchange).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if head.starts_with("HTTP/1.1 200") {
            Ok(value["value"].clone())
        } else {
            Err(value.to_string())
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // The driver ends its browser; killed itself, it would leave it behind.
        let _ = self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
    }
}
