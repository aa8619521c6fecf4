//! Real Nix on the stage: an ordinary static cache serves it, into a store of its own.

use system_tests::{CacheCompression, Lab, Nix, NixClient, StaticCache, skip};

#[test]
fn nix_gets_a_path_from_nginx() {
    let Some(lab) = Lab::new(2) else { return };
    if !skip::have(&[skip::Tool::Nix, skip::Tool::Nginx]) {
        return;
    }
    for nix in Nix::all() {
        let source = NixClient::new(&nix, lab.host(0), &[], &[]);
        let file = lab.dir().join("file");
        std::fs::write(&file, nix.version()).unwrap();
        let added = source.run("nix-store", &["--add", file.to_str().unwrap()]).ok();
        // Content-addressed, so it needs no signature.
        let path = added.output.trim().to_owned();

        for compression in [CacheCompression::None, CacheCompression::Zstd] {
            let paths = [path.clone()];
            let cache = StaticCache::start(lab.host(0), &nix, source.root(), &paths, compression);
            let Some(mut cache) = cache else { return };

            let mut client = NixClient::new(&nix, lab.host(1), &[&cache.url()], &[]);
            let copied = client.copy(&cache.url(), &path).ok();
            assert!(copied.cpu > std::time::Duration::ZERO);
            let _ = client.verify(&paths).ok();
            client.reset();
            assert!(!client.verify(&paths).success, "the store was not empty");
            let _ = client.realise(&path).ok();
            let _ = client.verify(&paths).ok();
            assert!(cache.process().usage().rss > 0);
        }
    }
}
