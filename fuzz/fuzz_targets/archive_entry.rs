//! Index entries: what is accepted has exactly one form, and its leaf can be computed.

#![no_main]

use haulout_archive::Entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(entry) = Entry::decode(data) {
        let mut again = Vec::new();
        entry.encode(&mut again).expect("what was read can be written");
        assert_eq!(again, data);
        Entry::leaf(data).expect("an entry has a leaf");
    }
});
