//! What people may write, and what they are told when it is wrong.

use std::collections::BTreeMap;

use super::*;
use crate::error::Outcome;

fn from_text(text: &str) -> Outcome<Settings> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haulout.toml");
    std::fs::write(&file, text).unwrap();
    load(Some(&file), &BTreeMap::new(), &[])
}

fn refusal(text: &str) -> String {
    let report = from_text(text).unwrap_err().report();
    report.split_once("haulout.toml").map_or_else(|| report.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn defaults_need_no_file() {
    let settings = load(None, &BTreeMap::new(), &[]).unwrap();
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:5299");
    assert!(settings.mesh.mdns && settings.share.enable && settings.trust.nix_conf);
    assert_eq!(settings.store.root, None);
}

#[test]
fn printed_settings_read_back_the_same() {
    let settings =
        from_text("[cache]\nquota = \"20 GiB\"\n[mesh]\npeers = [\"10.0.0.2:5299\"]\n").unwrap();
    let text = toml::to_string(&settings).unwrap();
    let again = from_text(&text).unwrap();
    assert_eq!(toml::to_string(&again).unwrap(), text);
}

#[test]
fn an_unknown_key_is_refused_with_line_and_suggestion() {
    let report = refusal("[http]\npriority = 20\n\n[mesh]\ninterface = [\"eth0\"]\n");
    assert!(report.starts_with(":5: unknown field `interface`"), "{report}");
    assert!(report.ends_with("hint: did you mean interfaces?"), "{report}");
}

#[test]
fn bad_values_are_refused_with_line_and_reason() {
    for (text, line, reason) in [
        ("[http]\nlisten = \"localhost\"\n", ":2:", "socket address"),
        ("[http]\npriority = -1\n", ":2:", "-1"),
        ("[cache]\nquota = \"lots\"\n", ":2:", "\"lots\" is not a size"),
        ("\n[mesh]\npeers = [\"10.0.0.2\"]\n", ":3:", "is not HOST:PORT"),
        ("[mesh]\nstrangers = \"some\"\n", ":2:", "unknown variant `some`"),
        ("[cache]\nnars = \"some\"\n", ":2:", "unknown variant `some`"),
        ("[mesh\n", ":1:", ""),
    ] {
        let report = refusal(text);
        assert!(report.starts_with(line) && report.contains(reason), "{text:?}: {report}");
        assert!(report.contains("\nhint: "), "{report}");
    }
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haulout.toml");
    std::fs::write(&file, "[http]\npriority = 20\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let environment = BTreeMap::from([
        ("HAULOUT_HTTP_PRIORITY".to_owned(), "21".to_owned()),
        ("HAULOUT_HTTP_LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
        ("HAULOUT_MESH_INTERFACES".to_owned(), "eth0".to_owned()),
    ]);
    let flags = [("--listen".to_owned(), "http.listen=127.0.0.1:3".to_owned())];
    let settings = load(Some(&file), &environment, &flags).unwrap();
    assert_eq!(settings.http.priority, 21);
    assert_eq!(settings.http.listen.port(), 3);
    assert_eq!(settings.mesh.interfaces, ["eth0"]);
}

#[test]
fn mistyped_variables_and_flags_are_refused() {
    let environment = BTreeMap::from([("HAULOUT_HTTP_PRIORTY".to_owned(), "1".to_owned())]);
    let report = load(None, &environment, &[]).unwrap_err().report();
    assert!(report.contains("did you mean HAULOUT_HTTP_PRIORITY?"), "{report}");

    let flags = [("--set".to_owned(), "mesh.mnds=false".to_owned())];
    let report = load(None, &BTreeMap::new(), &flags).unwrap_err().report();
    assert!(report.contains("no setting mesh.mnds") && report.contains("mesh.mdns?"), "{report}");

    let flags = [("--set".to_owned(), "mesh".to_owned())];
    assert!(load(None, &BTreeMap::new(), &flags).is_err());
}

#[test]
fn sizes_read_and_print() {
    for (text, bytes, printed) in [
        ("2 GiB", 2 << 30, "2 GiB"),
        ("10MB", 10_000_000, "10000000 B"),
        ("512", 512, "512 B"),
        ("1024", 1024, "1 KiB"),
    ] {
        let size: ByteSize = text.parse().unwrap();
        assert_eq!((size.0, size.to_string().as_str()), (bytes, printed));
    }
    assert!("99999999999 TiB".parse::<ByteSize>().is_err());
    assert!("-1 B".parse::<ByteSize>().is_err());
}

const ARCHIVES: &str = r#"
[[archive]]
file = "/etc/haulout/late.archive"
priority = 50
everything = true

[[archive]]
id = "0x00000000000000000000000000000000000000000000000000000000000000ab"
network = "mainnet"
committee = "/etc/haulout/committee.json"
keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]
"#;

#[test]
fn archives_are_asked_by_priority_and_read_back() {
    let settings = from_text(ARCHIVES).unwrap();
    let priorities: Vec<u32> = settings.archive.iter().map(|one| one.priority).collect();
    assert_eq!(priorities, [40, 50]);
    assert!(
        matches!(&settings.archive[0].name, ArchiveName::Object { network, .. } if network == "mainnet")
    );
    assert!(matches!(&settings.archive[0].anchor, Some(Anchor::Committee(_))));
    assert!(settings.archive[1].everything);
    let text = toml::to_string(&settings).unwrap();
    assert_eq!(toml::to_string(&from_text(&text).unwrap()).unwrap(), text);
    // Another list is a change that needs a restart.
    let differences = settings.differences(&from_text("").unwrap());
    assert_eq!(differences.restart, ["archive"]);
}

#[test]
fn archives_that_make_no_sense_are_refused_with_line_and_reason() {
    let id = format!("id = \"0x{}\"", "ab".repeat(32));
    for (body, reason) in [
        ("priority = 3".to_owned(), "needs `file`"),
        (format!("file = \"x\"\n{id}"), "not both"),
        ("file = \"x\"\nnetwork = \"mainnet\"".to_owned(), "names network and package already"),
        (id.clone(), "needs `network`"),
        ("id = \"0xzz\"\nnetwork = \"mainnet\"".to_owned(), "is not an object id"),
        ("file = \"x\"\ncheckpoint = \"0OIl\"".to_owned(), "is not the digest of a checkpoint"),
        ("file = \"x\"\nkeys = [\"nonsense\"]".to_owned(), "is not a public key"),
        ("file = \"x\"\nfiles = \"y\"".to_owned(), "unknown field `files`"),
        (
            "file = \"x\"\neverything = true\nkeys = [\"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\"]"
                .to_owned(),
            "means nothing",
        ),
    ] {
        let report = refusal(&format!("\n[[archive]]\n{body}\n"));
        assert!(report.starts_with(':') && report.contains(reason), "{body}: {report}");
        assert!(report.contains("\nhint: "), "{report}");
    }
    let many = "[[archive]]\nfile = \"x\"\n".repeat(17);
    assert!(from_text(&many).unwrap_err().report().contains("at most 16"));
}

#[test]
fn networks_are_known_by_what_people_write() {
    let known = r#"["gateway 52-54-0-A-B-C", "subnet 10.20.0.0/16", "ssid Home"]"#;
    let settings = from_text(&format!("[network]\nknown = {known}\n")).unwrap();
    let text = toml::to_string(&settings).unwrap();
    assert!(text.contains("gateway 52:54:00:0a:0b:0c"), "{text}");
    assert_eq!(toml::to_string(&from_text(&text).unwrap()).unwrap(), text);
    let flag = |value: &str| {
        let flags = [("--set".to_owned(), format!("network.known={value}"))];
        load(None, &BTreeMap::new(), &flags)
    };
    assert_eq!(flag("ssid Home").unwrap().network.known.len(), 1);
    let report = flag("wifi Home").unwrap_err().report();
    assert!(
        report.contains("\"gateway MAC\", \"subnet ADDRESS/BITS\" or \"ssid NAME\""),
        "{report}"
    );
}
