//! The stage with real Nix on it and no agent: a signed closure from an ordinary static
//! cache, into a store of its own.

use std::time::Duration;

use haulout_nix::SecretKey;
use system_tests::{CacheCompression, NixClient, Scene, StaticCache, skip};

#[test]
fn nix_gets_a_signed_closure_from_nginx() {
    let Some(scene) = Scene::new(2, 30, 2 << 20) else { return };
    if !skip::have(&[skip::Tool::Nginx]) {
        return;
    }
    let (closure, lab) = (scene.closure(), scene.lab());
    let top = [closure.top().to_owned()];
    let key = closure.public_key();
    let foreign = SecretKey::from_seed("foreign-1", [9; 32]).unwrap().public_key().to_string();
    for compression in [CacheCompression::None, CacheCompression::Zstd] {
        let cache = StaticCache::start(lab.host(0), scene.nix(), closure.root(), &top, compression);
        let Some(mut cache) = cache else { return };
        for nix in scene.nixes() {
            let mut client = NixClient::new(nix, lab.host(1), &[&cache.url()], &[&key]);
            let copied = client.copy(&cache.url(), closure.top()).ok();
            assert!(copied.cpu > Duration::ZERO);
            let _ = client.verify(&closure.paths()).ok();
            client.reset();
            assert!(!client.verify(&top).success, "the store was not empty");
            let _ = client.realise(closure.top()).ok();
            let _ = client.verify(&closure.paths()).ok();

            let distrustful = NixClient::new(nix, lab.host(1), &[&cache.url()], &[&foreign]);
            assert!(!distrustful.realise(closure.top()).success, "signatures are not checked");
        }
        assert!(cache.process().usage().rss > 0);
    }
}
