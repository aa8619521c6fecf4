use super::*;

const GOOD: &str = r#"
rpc_urls = ["http://127.0.0.1:9000", "https://node.example.org"]
system_object = "0x3a"
staking_object = "0xa2"
aggregators = ["http://[::1]:80/x"]

[trust_anchor]
checkpoint = "BZ7E9tQG8ABPf8fY7SrULexFywpEcHvqRPZpjobfnFQF"
"#;

fn parse(text: &str) -> Result<Network, NetworkError> {
    Network::parse(text, "net.toml", Path::new("/etc/haulout"))
}

#[test]
fn presets_are_the_public_networks() {
    for name in PRESETS {
        let network = Network::load(name).unwrap();
        assert_eq!(network.name, name);
        assert!(network.walrus_package.is_some() && network.wal_package.is_some());
    }
    let mainnet = Network::preset("mainnet").unwrap();
    assert!(mainnet.system_object.to_string().starts_with("0x2134d527"));
    assert_eq!(Network::preset("devnet"), None);
}

#[test]
fn a_file_reads_back_as_written() {
    let network = parse(GOOD).unwrap();
    assert_eq!(network.rpc_urls.len(), 2);
    assert_eq!(network.system_object.0[31], 0x3a);
    assert!(matches!(network.trust_anchor, Some(TrustAnchor::Checkpoint(_))));
    assert_eq!(parse(&network.to_toml()).unwrap(), network);
    let committee = GOOD.replace(
        "checkpoint = \"BZ7E9tQG8ABPf8fY7SrULexFywpEcHvqRPZpjobfnFQF\"",
        "committee = 'c.json'",
    );
    let network = parse(&committee).unwrap();
    assert_eq!(network.trust_anchor, Some(TrustAnchor::Committee("/etc/haulout/c.json".into())));
    assert_eq!(parse(&network.to_toml()).unwrap(), network);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases = [
        (
            "rpc_urls = [\"http",
            "rpc_urls = [\"ftp",
            "line 2: rpc_urls: a URL with the scheme \"ftp\"",
        ),
        ("http://127.0.0.1:9000", "http://u:p@h", "line 2: rpc_urls: a URL with a user name"),
        ("127.0.0.1:9000", "127.0.0.1:90000", "line 2: rpc_urls: a URL with the port \"90000\""),
        ("127.0.0.1:9000", ":9000", "a URL without a host"),
        ("0x3a", "3a", "line 3: "),
        ("0xa2", "0x3a", "line 4: the same id as system_object"),
        ("aggregators", "aggregator", "line 5: unknown field `aggregator`"),
        (
            "BZ7E9t",
            "0Z7E9t",
            "line 7: \"0Z7E9tQG8ABPf8fY7SrULexFywpEcHvqRPZpjobfnFQF\" is not a checkpoint digest",
        ),
        (
            "checkpoint =",
            "committee = 'x'\ncheckpoint =",
            "line 7: both of checkpoint and committee",
        ),
    ];
    for (from, to, expected) in cases {
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().starts_with("net.toml, line "), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.hint().is_empty());
        assert!(!error.to_string().contains("u:p"), "a password in {error}");
    }
    let error = parse("rpc_urls = []\nsystem_object='0x1'\nstaking_object='0x2'").unwrap_err();
    assert!(error.to_string().contains("rpc_urls is empty"), "{error}");
    let error = parse("rpc_urls = ['http://h']\nsystem_object='0x1'").unwrap_err();
    assert!(error.to_string().contains("staking_object"), "{error}");
    let many = format!("{:?}", vec!["http://h"; URLS_MAX + 1]);
    let error = parse(&format!("rpc_urls = {many}\nsystem_object='0x1'\nstaking_object='0x2'"));
    assert!(error.unwrap_err().to_string().contains("17 entries"));
}

#[test]
fn a_missing_or_huge_file_says_so() {
    let error = Network::load("no-such-network").unwrap_err();
    assert!(error.hint().contains("mainnet"), "{}", error.hint());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.toml");
    std::fs::write(&path, vec![b'#'; 70_000]).unwrap();
    let error = Network::read(&path).unwrap_err();
    assert!(error.to_string().contains("70000 bytes"), "{error}");
}

#[test]
fn base58_is_exact() {
    assert_eq!(base58_encode(&[0; 32]), "1".repeat(32));
    assert_eq!(base58_decode(&"1".repeat(32)), Some([0; 32]));
    assert_eq!(base58_decode(&"1".repeat(33)), None);
    assert_eq!(base58_decode(&"z".repeat(44)), None, "more than 256 bits");
    let text = "BZ7E9tQG8ABPf8fY7SrULexFywpEcHvqRPZpjobfnFQF";
    assert_eq!(base58_encode(&base58_decode(text).unwrap()), text);
    let mut bytes = [7; 32];
    bytes[0] = 0;
    assert_eq!(base58_decode(&base58_encode(&bytes)), Some(bytes));
}
