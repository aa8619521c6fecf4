//! `haulout walrus` as a user meets it: the commands that need no network, and mistakes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ring::digest::{SHA256, digest};

fn walrus(arguments: &[&str], directory: &Path, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_haulout"))
        .arg("walrus")
        .args(arguments)
        .env_clear()
        .env("HOME", directory)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(arguments: &[&str], directory: &Path, input: &[u8]) -> Vec<u8> {
    let output = walrus(arguments, directory, input);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output.stdout
}

/// The message of a command that has to fail.
fn fails(arguments: &[&str], directory: &Path) -> String {
    let output = walrus(arguments, directory, b"");
    assert!(!output.status.success(), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    text(&output.stderr)
}

/// The content of a recorded blob: SHA-256 of a counter.
fn recorded(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for counter in 0u32.. {
        if bytes.len() >= length {
            break;
        }
        let input = [b"haulout-fixture/", name.as_bytes(), &counter.to_le_bytes()].concat();
        bytes.extend_from_slice(digest(&SHA256, &input).as_ref());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn blob_ids_are_those_of_the_real_network() {
    let place = tempfile::tempdir().unwrap();
    for (name, length, id) in [
        ("p-0", 0, "AV-rO6QqINycpV851AiJqgcnI7Vwf4aK2rWvZCVyrR8"),
        ("p-4097", 4097, "9wIjUkvvIqY4ncsJDXr7rp2I2P3sKiBrB6jDle9d4es"),
        ("p-1048577", 1_048_577, "nTxuESa2ixsjqBHEKkZWwzqPKoiVm7vRSuUO-JZ6xhA"),
    ] {
        let blob = recorded(name, length);
        std::fs::write(place.path().join(name), &blob).unwrap();
        let printed = ok(&["blob-id", "--shards", "13", name], place.path(), b"");
        assert_eq!(text(&printed), format!("{id}\n"));
        let printed = ok(&["blob-id", "--shards", "13", "-", "--json"], place.path(), &blob);
        let json: serde_json::Value = serde_json::from_slice(&printed).unwrap();
        assert_eq!(
            (json["blob_id"].as_str(), json["size"].as_u64()),
            (Some(id), Some(length as u64))
        );
    }
}

#[test]
fn what_was_encoded_is_decoded_from_any_sufficient_slivers() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    let blob = recorded("cli", 10_000);
    let id = ok(&["encode", "--shards", "10", "--out", "s", "-"], here, &blob);
    let id = text(&id).trim().to_owned();
    assert_eq!(std::fs::read_dir(here.join("s")).unwrap().count(), 21);
    let decode = |slivers: &[&str], out: &str| {
        let mut arguments = vec!["decode", "--shards", "10", "--blob-id", &id, "--metadata"];
        arguments.extend(["s/metadata.bcs", "--out", out]);
        arguments.extend(slivers);
        walrus(&arguments, here, b"")
    };
    let systematic = ["s/primary-0.bcs", "s/primary-1.bcs", "s/primary-2.bcs", "s/primary-3.bcs"];
    let others = ["s/primary-9.bcs", "s/primary-4.bcs", "s/primary-2.bcs", "s/primary-7.bcs"];
    let columns = (3..10).map(|i| format!("s/secondary-{i}.bcs")).collect::<Vec<_>>();
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    for slivers in [&systematic[..], &others, &columns] {
        let decoded = decode(slivers, "out");
        assert!(decoded.status.success(), "{}", text(&decoded.stderr));
        assert!(std::fs::read(here.join("out")).unwrap() == blob);
        assert!(decode(slivers, "-").stdout == blob);
    }
    // Damaged, strange and doubled files do not count, and say so.
    std::fs::write(here.join("junk"), b"junk").unwrap();
    let mut damaged = std::fs::read(here.join("s/primary-5.bcs")).unwrap();
    damaged[100] ^= 1;
    std::fs::write(here.join("damaged"), damaged).unwrap();
    let mut slivers = others.to_vec();
    slivers.extend(["junk", "damaged", "s/metadata.bcs"]);
    let decoded = decode(&slivers, "-");
    assert!(decoded.stdout == blob);
    let warnings = text(&decoded.stderr);
    assert!(warnings.contains("junk is ignored") && warnings.contains("damaged is ignored"));
    let few = decode(&[others[0], others[0], others[1], "damaged"], "none");
    assert!(!few.status.success() && !here.join("none").exists());
    assert!(
        text(&few.stderr).contains("2 primary and 0 secondary slivers"),
        "{}",
        text(&few.stderr)
    );
    assert!(text(&few.stderr).contains("hint: any 4 primary or any 7 secondary"));
}

#[test]
fn mistakes_are_named() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    std::fs::write(here.join("file"), b"x").unwrap();
    ok(&["encode", "--shards", "7", "--out", "s", "file"], here, b"");
    let id = text(&ok(&["blob-id", "--shards", "7", "file"], here, b"")).trim().to_owned();
    let id = id.as_str();

    let message = fails(&["blob-id", "--shards", "3", "file"], here);
    assert!(message.contains("--shards 3") && message.contains("hint: "), "{message}");
    assert!(fails(&["blob-id", "--shards", "70000", "file"], here).contains("--shards"));
    assert!(fails(&["blob-id", "nowhere"], here).contains("cannot read the file nowhere"));
    assert!(fails(&["blob-id", "."], here).contains("it is a directory"));
    let decode = |id: &str, metadata: &str, sliver: &str| {
        fails(
            &[
                "decode",
                "--shards",
                "7",
                "--blob-id",
                id,
                "--metadata",
                metadata,
                "--out",
                "x",
                sliver,
            ],
            here,
        )
    };
    assert!(decode("abc", "s/metadata.bcs", "s/primary-0.bcs").contains("is not a blob id"));
    let other = "AV-rO6QqINycpV851AiJqgcnI7Vwf4aK2rWvZCVyrR8";
    assert!(
        decode(other, "s/metadata.bcs", "s/primary-0.bcs").contains("is not the metadata of blob")
    );
    assert!(decode(id, "file", "s/primary-0.bcs").contains("file is not metadata"));
    assert!(decode(id, "s/metadata.bcs", "s/nowhere.bcs").contains("cannot read the sliver"));
    let wrong_n = fails(
        &[
            "decode",
            "--shards",
            "10",
            "--blob-id",
            id,
            "--metadata",
            "s/metadata.bcs",
            "--out",
            "x",
            "file",
        ],
        here,
    );
    assert!(wrong_n.contains("7 hash pairs for 10 shards"), "{wrong_n}");
    // 393,205 bytes do not fit four shards.
    std::fs::write(here.join("large"), vec![0; 393_205]).unwrap();
    assert!(
        fails(&["blob-id", "--shards", "4", "large"], here).contains("larger than 393204 bytes")
    );

    let network = ["--network", "nowhere.toml"];
    let read = |arguments: &[&str]| fails(&[&["read", "--out", "x"], arguments].concat(), here);
    assert!(
        read(&[&[id][..], &network].concat()).contains("cannot read the network file nowhere.toml")
    );
    assert!(read(&["nonsense"]).contains("is not a blob id"));
    assert!(read(&[id, "--range", "5"]).contains("not of the form A-B"));
    std::fs::write(here.join("bad.toml"), "epoch = 1\n[[nodes]]\n").unwrap();
    assert!(read(&[id, "--network", "bad.toml"]).contains("is not a committee file"));
}

#[test]
fn a_network_that_is_down_is_an_error_with_a_reason() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    let key = data_encoding::BASE64.encode(&[&[2][..], &[7; 32]].concat());
    let bls = data_encoding::BASE64.encode(&[0xc0; 48]);
    let node = |i: usize| {
        format!(
            "[[nodes]]\nnode_id = \"0x{i}\"\naddress = \"127.0.0.1:{i}\"\n\
             network_public_key = \"{key}\"\nbls_public_key = \"{bls}\"\nshards = [{}]\n",
            i - 1
        )
    };
    let nodes: String = (1..5).map(node).collect();
    std::fs::write(here.join("net.toml"), format!("epoch = 1\nn_shards = 4\n{nodes}")).unwrap();
    let id = "AV-rO6QqINycpV851AiJqgcnI7Vwf4aK2rWvZCVyrR8";
    let message = fails(&["read", id, "--out", "-", "--network", "net.toml"], here);
    assert!(message.contains("4 are of nodes that cannot be reached"), "{message}");
    assert!(message.contains("hint: "), "{message}");
    std::fs::write(here.join("file"), b"x").unwrap();
    let message = fails(&["store", "file", "--network", "net.toml"], here);
    assert!(message.contains("nothing can be registered"), "{message}");
}

#[test]
fn quilts_are_made_listed_and_read_as_files() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    let files = [("one", 10), ("two", 5000), ("three", 0)];
    for (name, length) in files {
        std::fs::write(here.join(name), recorded(name, length)).unwrap();
    }
    let create = ["quilt", "create", "--shards", "13", "--out", "q", "--tag", "one:k=v"];
    let printed = ok(&[&create[..], &["one", "two", "drei=three"]].concat(), here, b"");
    let id = text(&ok(&["blob-id", "--shards", "13", "q"], here, b""));
    assert!(text(&printed).starts_with(&id));
    let place = ["--file", "q", "--shards", "13"];
    let listed = ok(&[&["quilt", "ls", "--json"], &place[..]].concat(), here, b"");
    let json: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let names: Vec<_> =
        json["files"].as_array().unwrap().iter().map(|f| &f["identifier"]).collect();
    assert_eq!(names, ["drei", "one", "two"]);
    assert_eq!(json["files"][1]["tags"]["k"], "v");
    let cat = |name| [&["quilt", "cat"], &place[..], &[name]].concat();
    assert!(ok(&cat("two"), here, b"") == recorded("two", 5000));
    assert!(ok(&cat("drei"), here, b"").is_empty());
    assert!(fails(&cat("four"), here).contains("there is no file \"four\""));
    let twice = [&create[..], &["one", "one=two"]].concat();
    assert!(fails(&twice, here).contains("is there twice"));
    std::fs::write(here.join("q"), recorded("q", 1000)).unwrap();
    assert!(fails(&[&["quilt", "ls"], &place[..]].concat(), here).contains("is not a quilt"));
}
