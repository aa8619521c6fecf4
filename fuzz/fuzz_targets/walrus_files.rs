//! Files that people and earlier runs leave behind: committee files, journals of writes. What is accepted is written back and read
//! again the same.
#![no_main]

use haulout_walrus::{CommitteeFile, Journal};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(journal) = Journal::parse(data) {
        assert_eq!(Journal::parse(&journal.text()), Ok(journal));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(file) = CommitteeFile::parse(text) {
        let text = file.to_toml().expect("it has a form in TOML");
        let again = CommitteeFile::parse(&text).expect("reads back");
        assert_eq!(again, file);
        assert!(file.committee.members.iter().all(|node| !node.shards.is_empty()));
        assert_eq!(file.identity().len(), 2 + 32 * file.committee.members.len());
    }
});
