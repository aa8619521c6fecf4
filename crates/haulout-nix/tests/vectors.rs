//! Facts that real Nix (2.8.0, 2.26.3, 2.34.8) agreed with, from `tests/data/vectors.json`.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly too")]

mod common;

use common::{decode, nested};
use data_encoding::HEXLOWER;
use haulout_nix::{
    ContentAddress, KeySet, NarHash, NarInfo, PathInfo, SecretKey, StoreDir, StorePath,
    content_address::Method,
    hash::{AnyHash, HashAlgorithm},
    nar, nix32,
};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/vectors.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}

fn sha256(bytes: &[u8]) -> AnyHash {
    AnyHash::new(HashAlgorithm::Sha256, NarHash::of(bytes).as_bytes()).unwrap()
}

#[test]
fn nix32_of_all_sizes() {
    for vector in vectors()["nix32"].as_array().unwrap() {
        let (bytes, encoded) = (hex(&vector["hex"]), text(&vector["nix32"]));
        assert_eq!(nix32::encode(&bytes), encoded);
        let mut decoded = vec![0xaa; bytes.len()];
        nix32::decode_into(encoded.as_bytes(), &mut decoded).unwrap();
        assert_eq!(decoded, bytes);
    }
}

#[test]
fn content_addresses_give_the_store_paths_of_real_nix() {
    let dir = StoreDir::default();
    let mut seen = 0;
    for vector in vectors()["store_paths"].as_array().unwrap() {
        let path = dir.parse_path(text(&vector["store_path"])).unwrap();
        let references: Vec<StorePath> = vector["refs"]
            .as_array()
            .map(|refs| refs.iter().map(|r| dir.parse_path(text(r)).unwrap()).collect())
            .unwrap_or_default();
        let label = text(&vector["label"]);
        let (method, hash) = match label {
            "text no refs" | "text with 1 ref" => {
                (Method::Text, sha256(text(&vector["contents"]).as_bytes()))
            }
            "source (recursive sha256)" => (Method::Nar, sha256(&hex(&vector["nar_hex"]))),
            "flat sha256" => (Method::Flat, sha256(text(&vector["contents"]).as_bytes())),
            "recursive sha1" => {
                let inner = text(&vector["inner_fingerprint"]);
                let digits = inner.strip_prefix("fixed:out:r:").unwrap().trim_end_matches(':');
                (Method::Nar, digits.parse().unwrap())
            }
            other => panic!("unknown vector {other}"),
        };
        let ca = ContentAddress::new(method, hash).unwrap();
        let by_ref: Vec<&StorePath> = references.iter().collect();
        let computed = ca.store_path(&dir, path.path_name().clone(), &by_ref, false);
        assert_eq!(computed.as_ref(), Some(&path), "{label}");

        let info = PathInfo {
            path: path.clone(),
            nar_hash: match method {
                Method::Nar => NarHash::from_bytes(hash.as_bytes().try_into().unwrap_or([9; 32])),
                _ => NarHash::from_bytes([9; 32]),
            },
            nar_size: 1,
            references,
            deriver: None,
            signatures: vec![],
            ca: Some(ca),
        };
        assert!(info.content_address_holds(&dir), "{label}");
        let mut moved = info.clone();
        moved.references.push(path);
        assert!(!moved.content_address_holds(&dir), "{label}");
        if info.content_address_fixes_nar_hash() {
            let other_nar = PathInfo { nar_hash: NarHash::from_bytes([1; 32]), ..info };
            assert!(!other_nar.content_address_holds(&dir), "{label}");
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}

fn signed(vector: &Value) -> PathInfo {
    PathInfo {
        path: StoreDir::default().parse_path(text(&vector["store_path"])).unwrap(),
        nar_hash: text(&vector["nar_hash"]).parse().unwrap(),
        nar_size: vector["nar_size"].as_u64().unwrap(),
        references: vector["references"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| text(r).parse().unwrap())
            .collect(),
        deriver: None,
        signatures: vec![text(&vector["sig"]).parse().unwrap()],
        ca: None,
    }
}

#[test]
fn fingerprints_and_signatures_are_those_of_real_nix() {
    let (dir, all) = (StoreDir::default(), vectors());
    let signing = &all["signing"];
    let secret: SecretKey = text(&signing["secret_key"]).parse().unwrap();
    assert_eq!(secret.public_key().to_string(), text(&signing["public_key"]));
    assert_eq!(secret.to_secret_text(), text(&signing["secret_key"]));
    let keys: KeySet = text(&signing["public_key"]).parse().unwrap();

    for vector in signing["paths"].as_array().unwrap() {
        let info = signed(vector);
        let nar = hex(&vector["nar_hex"]);
        assert_eq!(NarHash::of(&nar), info.nar_hash);
        assert_eq!(nar.len() as u64, info.nar_size);
        assert_eq!(info.fingerprint(&dir), text(&vector["fingerprint"]));
        assert_eq!(info.sign(&dir, &secret), info.signatures[0]);
        assert_eq!(info.verified_by(&dir, &keys), Some(secret.public_key()));

        let mut unsorted = info.clone();
        unsorted.references.reverse();
        assert_eq!(unsorted.verified_by(&dir, &keys), Some(secret.public_key()));
        let forged = PathInfo { nar_size: info.nar_size + 1, ..info.clone() };
        assert_eq!(forged.verified_by(&dir, &keys), None);
        assert_eq!(info.verified_by(&dir, &KeySet::new()), None);
    }
}

#[test]
fn narinfos_are_read_and_written_as_by_real_nix() {
    let (dir, all) = (StoreDir::default(), vectors());
    for vector in all["signing"]["paths"].as_array().unwrap() {
        let written = text(&vector["narinfo"]);
        let narinfo = NarInfo::parse(written.as_bytes(), &dir).unwrap();
        assert_eq!(narinfo.info, signed(vector));
        assert_eq!(narinfo.to_text(&dir), written);
    }
}

#[test]
fn nars_that_real_nix_refuses_are_refused() {
    let all = vectors();
    let verdicts = all["nar_verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 23);
    for verdict in verdicts {
        let case = text(&verdict["case"]);
        let nar = if verdict["hex"].is_string() {
            hex(&verdict["hex"])
        } else {
            // The deep trees are too long to write down.
            nested(case.rsplit('-').next().unwrap().parse().unwrap()).nar()
        };
        // Nix ignores bytes after the end; nobody needs them.
        let accepted = text(&verdict["nix_2_34_8"]) == "accept" && case != "14-trailing";
        for piece in [1, 7, 8, nar.len()] {
            assert_eq!(decode(&nar, piece).is_ok(), accepted, "{case} in pieces of {piece}");
        }
        assert_eq!(nar::check(&nar[..]).is_ok(), accepted, "{case}");
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        assert_eq!(nar::restore(&nar[..], &dest).is_ok(), accepted, "{case}");
        if accepted {
            assert_eq!(nar::hash_path(&dest).unwrap().hash, NarHash::of(&nar), "{case}");
        }
        let others = std::fs::read_dir(dir.path()).unwrap();
        assert!(others.map(|entry| entry.unwrap().path()).all(|path| path == dest), "{case}");
    }
}

#[test]
fn nars_of_real_nix_survive_a_round_trip() {
    let all = vectors();
    for vector in all["signing"]["paths"].as_array().unwrap() {
        let nar = hex(&vector["nar_hex"]);
        assert_eq!(decode(&nar, 100).unwrap().nar(), nar);
    }
}
