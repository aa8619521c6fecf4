//! `nix log --store URL`: the build logs of a machine's own store, for its own Nix.

use std::fs;

use system_tests::{Agent, NixClient, Scene};

#[test]
fn nix_reads_the_log_of_what_was_built_here() {
    let Some(scene) = Scene::new(1, 12, 1 << 20) else { return };
    let agent = scene.seed(0);
    let built = scene.closure().infos().iter().find(|info| info.deriver.is_some());
    let built = built.expect("the sample knows derivers");
    let derivation = built.deriver.as_ref().map(ToString::to_string).unwrap_or_default();
    let logs = scene.closure().root().join("nix/var/log/nix/drvs").join(&derivation[..2]);
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join(&derivation[2..]), "compiling\nlinking\ndone at last\n").unwrap();

    let path = format!("/nix/store/{}", built.path);
    for nix in scene.nixes() {
        let keys = [scene.closure().public_key()];
        let client = NixClient::new(nix, scene.lab().host(0), &[], &[&keys[0]]);
        let url = format!("http://{}", Agent::HTTP);
        let outcome = client.run("nix", &["log", "--store", &url, &path]).ok();
        assert!(outcome.output.contains("done at last"), "{}: {}", nix.version(), outcome.output);
        // A path without a log is an answer, too.
        let other = scene.closure().infos().iter().find(|info| info.path != built.path).unwrap();
        let other = format!("/nix/store/{}", other.path);
        let outcome = client.run("nix", &["log", "--store", &url, &other]);
        assert!(!outcome.success && !outcome.hung, "{}: {}", nix.version(), outcome.output);
    }
    assert_eq!(agent.status().counters.http.panics, 0);
}
