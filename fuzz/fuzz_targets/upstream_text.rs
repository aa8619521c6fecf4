//! The small texts of caches: URLs in settings and narinfos, `nix-cache-info`.

#![no_main]

use haulout_upstream::CacheUrl;
use haulout_upstream::cache_info::CacheInfo;
use haulout_upstream::location::relative_key;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = CacheInfo::parse(text).check(&haulout_nix::StoreDir::default());
    let base = "https://cache.example/team";
    if let Ok(key) = relative_key(text, base) {
        // What is accepted stays below the cache, however it is joined.
        let joined = format!("{base}/{key}");
        let path = std::path::Path::new("/cache").join(key.split('?').next().unwrap_or_default());
        assert!(joined.starts_with("https://cache.example/team/"));
        assert!(path.starts_with("/cache") && path.components().all(|part| part.as_os_str() != ".."));
    }
    if let Ok(url) = text.parse::<CacheUrl>() {
        let _ = url.is_this_machine();
        assert!(!url.as_str().is_empty());
    }
});
