//! Caches outside of the mesh, as sources and as targets, with real Nix and nginx.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use system_tests::{Agent, AgentSpec, NixClient, Scene, StaticCache, haulout};

const PATHS: usize = 60;
const BYTES: u64 = 6 << 20;

fn push(arguments: &[&str]) -> Output {
    let output = Command::new(haulout()).arg("push").args(arguments).output().expect("haulout");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("cache")
        .map(|entry| entry.expect("cache").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_pushed_is_a_cache_for_real_nix() {
    let Some(scene) = Scene::new(1, PATHS, BYTES) else { return };
    let closure = scene.closure();
    let root = closure.root().display().to_string();
    let host = scene.lab().host(0);
    for method in ["none", "zstd", "xz:1"] {
        let dir = scene.lab().dir().join(format!("pushed-{}", method.replace(':', "-")));
        let url = format!("file://{}", dir.display());
        let arguments =
            ["--store-root", &root, "--to", &url, "--compression", method, closure.top()];
        push(&arguments);
        let names = files(&dir);
        assert_eq!(names.len(), PATHS + 2, "a narinfo each, nar, nix-cache-info");
        let before = files(&dir.join("nar"));
        // What a kill would leave: a NAR without its narinfo. It is not written again.
        let victim = dir.join(format!("{}.narinfo", closure.top_info().path.hash_part()));
        fs::remove_file(&victim).expect("narinfo");
        let again = push(&arguments);
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(said.contains("1 paths pushed") && said.contains("0 B written"), "{said}");
        assert_eq!(files(&dir.join("nar")), before);
        for nix in scene.nixes() {
            let client = NixClient::new(nix, host, &[&url], &[&closure.public_key()]);
            let _ = client.copy(&url, closure.top()).ok();
            let _ = client.verify(&closure.paths()).ok();
            let _ = NixClient::new(nix, host, &[&url], &[&closure.public_key()])
                .realise(closure.top())
                .ok();
        }
    }
}

#[test]
fn a_key_of_ones_own_signs_what_was_built_here() {
    let Some(scene) = Scene::new(1, 12, 1 << 20) else { return };
    let (closure, dir) = (scene.closure(), scene.lab().dir());
    let leaf = closure.leaf(0);
    closure.set_signatures(leaf, &[]);
    let key = haulout_nix::SecretKey::from_seed("team-1", [7; 32]).expect("a good name");
    let key_file = dir.join("team.key");
    fs::write(&key_file, key.to_secret_text()).expect("scratch");
    let path = haulout_nix::StoreDir::default().display(&leaf.path);
    let (root, url) =
        (closure.root().display().to_string(), format!("file://{}/signed", dir.display()));
    let key_file = key_file.display().to_string();
    push(&["--store-root", &root, "--to", &url, "--sign", &key_file, &path]);
    let host = scene.lab().host(0);
    let public = key.public_key().to_string();
    let _ = NixClient::new(scene.nix(), host, &[&url], &[&public]).realise(&path).ok();
    let others =
        NixClient::new(scene.nix(), host, &[&url], &[&closure.public_key()]).realise(&path);
    assert!(!others.success, "nobody else vouches for it");
}

/// A certificate for the host's address, as files.
fn certificate(dir: &Path, address: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([address.to_owned()]).expect("certificate");
    let pem = |name: &str, label: &str, der: &[u8]| {
        let mut text = format!("-----BEGIN {label}-----\n");
        let encoded = base64(der);
        encoded.as_bytes().chunks(64).for_each(|line| {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        });
        text.push_str(&format!("-----END {label}-----\n"));
        let file = dir.join(name);
        fs::write(&file, text).expect("scratch");
        file.display().to_string()
    };
    (
        pem("cert.pem", "CERTIFICATE", made.cert.der()),
        pem("key.pem", "PRIVATE KEY", &made.signing_key.serialize_der()),
    )
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

#[test]
fn machines_without_an_agent_read_and_upload_through_the_gateway() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let (closure, dir) = (scene.closure(), scene.lab().dir());
    let (server, guest) = (scene.lab().host(0), scene.lab().host(1));
    let address = server.address().to_string();
    let (cert, key) = certificate(dir, &address);
    let (writers, netrc, uploads) = (dir.join("writers"), dir.join("netrc"), dir.join("uploads"));
    fs::write(&writers, "ci:s3cret\n").expect("scratch");
    fs::write(&netrc, format!("machine {address} login ci password s3cret\n")).expect("scratch");
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    // An agent over an empty store: what it gives was uploaded.
    let spec = AgentSpec::new(&dir.join("empty"), &[&closure.public_key()])
        .set("gateway.listen", "\"0.0.0.0:5300\"")
        .set("gateway.tls_cert", format!("{cert:?}"))
        .set("gateway.tls_key", format!("{key:?}"))
        .set("gateway.allow", "[\"10.77.0.0/24\"]")
        .set("gateway.writers_file", quoted(&writers))
        .set("gateway.uploads_dir", quoted(&uploads));
    let _agent = Agent::start(server, &spec);
    let url = format!("https://{address}:5300");
    let keys = closure.public_key();
    let source = format!("local?root={}", closure.root().display());
    // Nix 2.8 knows the certificate by this variable only.
    let trusting = format!("NIX_SSL_CERT_FILE={cert}");
    let client = |netrc: &str| {
        let conf = format!("netrc-file = {netrc}\n");
        NixClient::with_conf(scene.nix(), guest, &[&url], &[&keys], &conf)
    };
    let (stranger, writer) = (client("/nonexistent"), client(&netrc.display().to_string()));
    for method in ["xz", "zstd", "none"] {
        let to = format!("{url}?compression={method}");
        let upload = |client: &NixClient<'_>| {
            let copy =
                ["nix", "copy", "--no-check-sigs", "--from", &source, "--to", &to, closure.top()];
            client.run("/usr/bin/env", &[&[trusting.as_str()], &copy[..]].concat())
        };
        let refused = upload(&stranger);
        assert!(!refused.success, "no password, no upload: {}", refused.output);
        let _ = upload(&writer).ok();
        // Reading needs no password here.
        let mut reader = client("/nonexistent");
        let _ =
            reader.run("/usr/bin/env", &[&trusting, "nix-store", "--realise", closure.top()]).ok();
        let _ = reader.verify(&closure.paths()).ok();
        reader.reset();
        stranger.forget();
        writer.forget();
        system_tests::empty_cache(&uploads);
    }
}

#[test]
fn an_agent_fetches_from_caches_of_every_kind() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let closure = scene.closure();
    let (wan, top) = (scene.lab().host(0), [closure.top().to_owned()]);
    for method in ["xz", "zstd", "bzip2", "gzip", "br", "none"] {
        let dir = scene.lab().dir().join(format!("cache-{method}"));
        scene.nix().make_cache(closure.root(), &top, &dir, method);
        let Some(mut cache) = StaticCache::of(wan, &dir) else { return };
        let url = format!("[\"{}\"]", cache.url());
        let machine =
            scene.machine_with(1, scene.nix(), &[], |spec| spec.set("upstream.urls", url));
        let _ = machine.nix.realise(closure.top()).ok();
        let _ = machine.nix.verify(&closure.paths()).ok();
        system_tests::wiretap::assert_no_server_errors(&machine.tap.take());
        cache.process().kill();
    }
}

#[test]
fn caches_that_others_announce_are_used() {
    let Some(scene) = Scene::new(2, 20, 2 << 20) else { return };
    let closure = scene.closure();
    let (lan, top) = (scene.lab().host(0), [closure.top().to_owned()]);
    let dir = scene.lab().dir().join("announced");
    scene.nix().make_cache(closure.root(), &top, &dir, "zstd");
    let Some(cache) = StaticCache::of(lan, &dir) else { return };
    let port: u16 =
        cache.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let address = lan.address().to_string();
    let announcer = lan.inside(|| {
        let daemon = mdns_sd::ServiceDaemon::new().expect("mDNS");
        // The type in use is a character longer than RFC 6763 allows.
        daemon.set_service_name_len_max(16).expect("mDNS");
        let kind = haulout_mesh::CACHE_SERVICE_TYPE;
        let service = mdns_sd::ServiceInfo::new(
            kind,
            "some-uuid",
            "harmonia.local.",
            &address[..],
            port,
            None,
        )
        .expect("service");
        daemon.register(service).expect("announced");
        daemon
    });
    let mut machine = scene.machine(1);
    let narinfo = format!("/{}.narinfo", closure.top_info().path.hash_part());
    let found = system_tests::wait_until(system_tests::FIND_LIMIT, || {
        machine.agent.get(&narinfo).is_ok_and(|answer| answer.status == 200)
    });
    assert!(found, "{}", machine.agent.process().log());
    let _ = machine.nix.realise(closure.top()).ok();
    let _ = machine.nix.verify(&closure.paths()).ok();
    let _ = announcer.shutdown();
}

#[test]
fn what_appears_in_the_store_is_pushed_by_policy_and_over_a_restart() {
    let Some(scene) = Scene::new(1, 30, 2 << 20) else { return };
    let (closure, cache) = (scene.closure(), scene.other_cache());
    let target = scene.lab().dir().join("pushed");
    let to = format!("\"file://{}\"", target.display());
    let mut machine = scene.machine_with(0, scene.nix(), &[&cache], |spec| {
        spec.set("push.to", to).set("push.what", "\"signed\"")
    });
    let narinfo = |hash| target.join(format!("{hash}.narinfo"));
    let all_there = |paths: &[haulout_nix::PathInfo]| {
        system_tests::wait_until(std::time::Duration::from_secs(60), || {
            paths.iter().all(|info| narinfo(info.path.hash_part()).exists())
        })
    };
    machine.agent.process().wait_for_log("from now on goes to", system_tests::FIND_LIMIT);
    // A first path, so that there is a mark; then the rest while the agent is away.
    let first = closure.leaf(0).clone();
    let _ = machine.nix.realise(&haulout_nix::StoreDir::default().display(&first.path)).ok();
    assert!(all_there(&[first]), "{}", machine.agent.process().log());
    machine.agent.process().kill();
    let _ = machine.nix.copy(&cache, closure.top()).ok();
    machine.agent.restart();
    assert!(all_there(closure.infos()), "{}", machine.agent.process().log());
    let client = NixClient::new(scene.nix(), scene.lab().host(0), &[], &[&closure.public_key()]);
    let _ = client.copy(&format!("file://{}", target.display()), closure.top()).ok();
}
