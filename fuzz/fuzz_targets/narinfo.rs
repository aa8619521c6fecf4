//! The narinfo parser: what it accepts, written anew, means the same and stays the same.

#![no_main]

use haulout_nix::{NarInfo, StoreDir};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let dir = StoreDir::default();
    if let Ok(narinfo) = NarInfo::parse(data, &dir) {
        let text = narinfo.to_text(&dir);
        let again = NarInfo::parse(text.as_bytes(), &dir);
        assert_eq!(again.as_ref(), Ok(&narinfo));
        assert_eq!(narinfo.info.fingerprint(&dir).matches(';').count(), 4);
        let _ = narinfo.info.content_address_holds(&dir);
    }
});
