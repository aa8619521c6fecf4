//! Committee files and journals as they lie on disk: the seeds of their fuzz target are what they are called.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use haulout_walrus::{CommitteeFile, Journal, network_key};

#[test]
fn seeds_are_what_their_names_say() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let read = |name: &str| std::fs::read(seeds.join(name)).unwrap();
    let committee = String::from_utf8(read("walrus_files/committee")).unwrap();
    let file = CommitteeFile::parse(&committee).unwrap();
    assert_eq!(file.committee.members.len(), 2);
    assert_eq!(CommitteeFile::parse(&file.to_toml().unwrap()).unwrap(), file);
    let orphan = String::from_utf8(read("walrus_files/committee_orphan")).unwrap();
    let error = CommitteeFile::parse(&orphan).unwrap_err().to_string();
    assert!(error.contains("shard 2 belongs to no node"), "{error}");

    for name in ["journal", "journal_registered"] {
        let journal = Journal::parse(&read(&format!("walrus_files/{name}"))).unwrap();
        assert_eq!(Journal::parse(&journal.text()), Ok(journal));
    }
    assert!(Journal::parse(&read("walrus_files/journal_cut")).unwrap_err().contains("EOF"));
    let other = String::from_utf8(read("walrus_files/journal")).unwrap();
    let other = other.replace("\"version\": 1", "\"version\": 2");
    assert_eq!(Journal::parse(other.as_bytes()).unwrap_err(), "version 2");

    assert!(network_key(&read("walrus_wire/certificate")).is_some());
    assert_eq!(network_key(&committee.into_bytes()), None);
}
