//! The status page in a real browser: alive without asking anybody else, readable on a phone and in the dark, safe
//! against what peers say. `HAULOUT_TEST_SCREENSHOTS=DIR` keeps the pictures.

use std::path::PathBuf;
use std::time::Duration;

use system_tests::{Browser, FIND_LIMIT, Scene, wait_until};

const PATHS: usize = 60;
const BYTES: u64 = 4 << 20;
/// What changes shows within a second, on a machine that has time.
const LIVE: Duration = Duration::from_secs(60);

fn keep(scene: &Scene, name: &str, png: &[u8]) {
    assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{name}: {} bytes", png.len());
    let dir = std::env::var_os("HAULOUT_TEST_SCREENSHOTS")
        .map_or_else(|| scene.lab().dir().to_owned(), PathBuf::from);
    std::fs::write(dir.join(format!("{name}.png")), png).unwrap();
}

#[test]
fn people_see_what_goes_on() {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    let _seed = scene.seed(0);
    let _liar = scene.liar(1, "flipped-byte");
    // One cache outside that works, and one where nobody answers.
    let (cache, down) =
        (scene.other_cache(), format!("http://{}:9", scene.lab().host(0).address()));
    let machine = scene.machine_with(2, scene.nix(), &[], |spec| {
        spec.set("upstream.urls", format!("[{cache:?}, {down:?}]"))
    });
    machine.agent.wait_for_peers(2, FIND_LIMIT);
    let (host, url) = (machine.agent.host(), machine.agent.url());

    let Some(browser) = Browser::start(host, scene.lab().dir(), &["--window-size=1280,1700"])
    else {
        return;
    };
    browser.open(&url);
    let says = |expression: &str, word: &str| {
        wait_until(LIVE, || {
            browser.evaluate(expression).as_str().is_some_and(|text| text.contains(word))
        })
    };
    assert!(says("document.getElementById('live').textContent", "live"), "no events arrive");
    assert!(says("document.getElementById('peers').innerText", "connected"));
    assert!(says("document.getElementById('saved').innerText", "0 B today"));
    // What the reader opened stays open while the page changes.
    let _ = browser.evaluate("document.querySelector('#settings details').open = true");
    let _ = machine.nix.realise(scene.closure().top()).ok();
    assert!(says("document.getElementById('saved').innerText", "MB"), "the page did not follow");
    assert_eq!(browser.evaluate("document.querySelector('#settings details').open"), true);
    assert!(says("document.getElementById('settings').innerText", "mesh.port = "));
    // What nobody has is asked of the caches; how they are is told.
    let nobody = format!("/{}.narinfo", "0".repeat(32));
    for _ in 0..4 {
        assert_eq!(machine.agent.get(&nobody).unwrap().status, 404);
    }
    assert!(says("document.getElementById('sources').innerText", "last trouble"));
    let sources = browser.evaluate("document.getElementById('sources').innerText");
    let sources = sources.as_str().unwrap();
    assert!(
        sources.contains(&down) && sources.contains("file://") && sources.contains("good"),
        "{sources}"
    );
    let metrics = machine.agent.get("/metrics").unwrap().text();
    for wanted in [
        format!(
            "haulout_source_requests_total{{kind=\"upstream\",name=\"{down}\",end=\"failed\"}}"
        ),
        "end=\"answered\"} 1".to_owned(),
    ] {
        assert!(metrics.contains(&wanted), "{wanted}: {metrics}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // Everything the page needs came from the agent.
    let foreign = browser.evaluate(&format!(
        "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('{url}/'))"
    ));
    assert_eq!(foreign, serde_json::json!([]));
    keep(&scene, "desktop", &browser.picture());
    drop(browser);

    for (name, more) in [
        ("phone", &["--window-size=500,3200"][..]),
        ("dark", &["--window-size=1280,1700", "--blink-settings=preferredColorScheme=0"]),
    ] {
        let dir = scene.lab().dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let Some(browser) = Browser::start(host, &dir, more) else { return };
        browser.open(&url);
        let wide = browser.evaluate("document.documentElement.scrollWidth > window.innerWidth");
        assert_eq!(wide, false, "{name}: the page must be scrolled sideways");
        keep(&scene, name, &browser.picture());
    }
}

/// A page of somebody else's, whose name suddenly points to this machine, learns nothing.
#[test]
fn a_rebound_name_gets_nothing() {
    let Some(scene) = Scene::new(1, 10, 1 << 20) else { return };
    let machine = scene.machine(0);
    let rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let Some(browser) = Browser::start(machine.agent.host(), scene.lab().dir(), &[rebound]) else {
        return;
    };
    browser.open(&machine.agent.url().replace("127.0.0.1", "evil.example"));
    let page = browser.evaluate("document.documentElement.innerText");
    let page = page.as_str().unwrap();
    assert!(page.contains("not one of this machine's") && !page.contains("Who is here"), "{page}");
}

/// The command that a person runs when something seems wrong, on a machine where little is right.
#[test]
fn the_doctor_names_what_is_wrong() {
    let Some(scene) = Scene::new(2, 10, 1 << 20) else { return };
    let seed = scene.seed(0);
    let machine = scene.machine(1);
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    let address = machine.agent.url().replace("http://", "");
    let doctor = |conf: &str| {
        machine
            .agent
            .host()
            .command(system_tests::haulout())
            .args(["doctor", "--json", "--agent", &address])
            .env("NIX_CONF_DIR", "/nonexistent")
            .env("NIX_CONFIG", conf)
            .output()
            .unwrap()
    };
    let level = |output: &std::process::Output, check: &str| {
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let found = findings.as_array().unwrap().iter().find(|one| one["check"] == check).cloned();
        found.map(|one| one["level"].as_str().unwrap().to_owned())
    };
    let wrong = doctor("");
    assert!(!wrong.status.success());
    assert_eq!(level(&wrong, "substituter").as_deref(), Some("bad"));
    assert_eq!(level(&wrong, "agent").as_deref(), Some("good"));
    assert_eq!(level(&wrong, "peers").as_deref(), Some("good"));
    let right = doctor(&format!("extra-substituters = http://{address}"));
    assert_eq!(level(&right, "substituter").as_deref(), Some("good"));
    assert_eq!(
        level(&right, "multicast").as_deref(),
        Some("good"),
        "{}",
        String::from_utf8_lossy(&right.stdout)
    );
    drop(seed);
}
