//! The bytecode of the Move package in `contracts/archive`, ready to be published, and what its
//! abort codes mean.

/// The compiled module, for mainnet. `contracts/move.mjs check` and a test here compare it with the
/// digest that is committed beside it.
const MODULE: &[u8] = include_bytes!("../../../contracts/archive/bytecode/archive.mv");

/// The original id of the Walrus package on mainnet, by which the module names Walrus' types.
pub const WALRUS_MAINNET: [u8; 32] = [
    0xfd, 0xc8, 0x8f, 0x7d, 0x7c, 0xf3, 0x0a, 0xfa, 0xb2, 0xf8, 0x2e, 0x83, 0x80, 0xd1, 0x1e, 0xe8,
    0xf7, 0x0e, 0xfb, 0x90, 0xe8, 0x63, 0xd1, 0xde, 0x86, 0x16, 0xfa, 0xe1, 0xbb, 0x09, 0xea, 0x77,
];

/// Name of the module.
pub const MODULE_NAME: &str = "archive";

/// Most levels of an archive; the contract refuses more.
pub const LEVELS_MAX: usize = 8;

/// Most publishers of an archive at a time; the contract refuses more.
pub const PUBLISHERS_MAX: usize = 8;

/// Most bytes of an archive's store directory and of its name; the contract refuses more.
pub const TEXT_BYTES_MAX: usize = 128;

/// The module for a network on which the Walrus package has the given original id.
///
/// Publish it with the dependencies `0x1`, `0x2`, Walrus' and WAL's current package ids.
#[must_use]
pub fn module_for(walrus_original_id: &[u8; 32]) -> Vec<u8> {
    let mut module = MODULE.to_vec();
    let at = module.windows(32).position(|window| window == WALRUS_MAINNET);
    if let Some(place) = at.and_then(|at| module.get_mut(at..at + 32)) {
        place.copy_from_slice(walrus_original_id);
    }
    module
}

/// What an abort code of the contract means, for people.
#[must_use]
pub const fn explain_abort(code: u64) -> Option<&'static str> {
    Some(match code {
        1 => "the owner's cap is that of another archive",
        2 => "the publisher's cap is that of another archive",
        3 => "the publisher's cap was revoked",
        4 => "somebody else published to the archive in the meantime",
        5 => "the archive is frozen: nothing can be published to it any more",
        6 => "the Merkle root is not 32 bytes",
        7 => "the new level has no entries",
        8 => "the index blob is registered but not certified",
        9 => "the index blob is deletable; archives need permanent blobs",
        10 => "the storage of the index blob ends before the level should",
        11 => "a level of the archive has already ended",
        12 => "the archive would have more than 8 levels",
        13 => "a level to be kept does not exist, or they are out of order",
        14 => "the place of the new level does not exist",
        15 => "this does not extend the level: another blob, or no later end",
        16 => "the store directory is not an absolute path, or a text is longer than 128 bytes",
        17 => "the archive would have more than 8 publishers",
        18 => "no such publisher",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use ring::digest::{SHA256, digest};

    const DIGESTS: &str = include_str!("../../../contracts/archive/bytecode/digests.txt");
    const SOURCE: &str = include_str!("../../../contracts/archive/sources/archive.move");

    fn sha256(bytes: &[u8]) -> String {
        HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
    }

    #[test]
    fn module_is_the_one_whose_digest_is_committed() {
        let expected = DIGESTS.lines().find_map(|line| line.strip_prefix("sha256 ")).unwrap();
        assert_eq!(sha256(MODULE), expected);
        assert!(DIGESTS.contains(&format!("bytes {}\n", MODULE.len())));
    }

    #[test]
    fn another_networks_module_differs_in_one_address() {
        assert_eq!(MODULE.windows(32).filter(|w| *w == WALRUS_MAINNET).count(), 1);
        assert_eq!(module_for(&WALRUS_MAINNET), MODULE);
        let testnet = HEXLOWER
            .decode(b"d84704c17fc870b8764832c535aa6b11f21a95cd6f5bb38a9b07d2cf42220c66")
            .unwrap()
            .try_into()
            .unwrap();
        // What the compiler gave with that address: `move.mjs check archive --walrus 0xd847…`.
        assert_eq!(
            sha256(&module_for(&testnet)),
            "9c6ff190467f8d7b957ec5209d9620e49fc75e96cf93adfb31578b25f0596457"
        );
    }

    #[test]
    fn every_abort_code_of_the_source_is_explained() {
        let codes: Vec<u64> = SOURCE
            .lines()
            .filter(|line| line.starts_with("const E"))
            .map(|line| line.rsplit_once("= ").unwrap().1.trim_end_matches(';').parse().unwrap())
            .collect();
        assert_eq!(codes, (1..=18).collect::<Vec<u64>>());
        assert!(codes.iter().all(|code| explain_abort(*code).is_some()));
        assert_eq!(explain_abort(19), None);
    }
}
