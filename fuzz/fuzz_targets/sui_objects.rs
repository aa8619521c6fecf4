//! Move structs out of objects, committee files and network files: what is accepted writes
//! back the same.

#![no_main]

use haulout_sui::{
    Network,
    archive::ArchiveState,
    proof::parse_committee,
    walrus_types::{
        Blob, BlobCertified, BlobRegistered, Coin, Field, SharedBlob, StakingInner, StakingPool,
        SystemStateInner, Versioned, decode,
    },
};
use serde::{Serialize, de::DeserializeOwned};

fn same<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>("object", bytes) {
        assert_eq!(bcs::to_bytes(&value).expect("writes back"), bytes);
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 13 {
        0 => same::<Versioned>(bytes),
        1 => same::<Field<u64, SystemStateInner>>(bytes),
        2 => same::<Field<u64, StakingInner>>(bytes),
        3 => same::<StakingPool>(bytes),
        4 => same::<Blob>(bytes),
        5 => same::<SharedBlob>(bytes),
        6 => same::<Coin>(bytes),
        7 => same::<BlobRegistered>(bytes),
        8 => same::<BlobCertified>(bytes),
        9 => same::<Vec<(String, String)>>(bytes),
        10 => {
            if let Ok(state) = ArchiveState::read(bytes) {
                assert_eq!(bcs::to_bytes(&state).expect("writes back"), bytes);
                assert!(state.levels.iter().all(|level| level.root()[..] == level.root[..]));
            }
        }
        11 => {
            if let Ok(committee) = parse_committee(bytes) {
                let bytes = bcs::to_bytes(&committee).expect("writes");
                assert_eq!(parse_committee(&bytes), Ok(committee));
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(network) = Network::parse(text, "fuzz", "".as_ref()) {
                let again = Network::parse(&network.to_toml(), "fuzz", "".as_ref());
                assert_eq!(again.expect("reads back"), network);
            }
        }
    }
});
