//! Holdings from a peer: whatever decodes must be the one canonical encoding of what it says, and the directory must
//! take it without harm.
#![no_main]

use haulout_swarm::PeerId;
use haulout_swarm::directory::Directory;
use haulout_swarm::holdings::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else { return };
    assert_eq!(message.encode(), bytes);
    let Message::Snapshot(snapshot) = message else { return };
    let peer = PeerId::from_bytes([1; 32]);
    let mut directory = Directory::new();
    if directory.apply_snapshot(peer, &snapshot).is_ok() {
        for prefix in snapshot.entries() {
            assert_eq!(directory.who_has(*prefix, 0).as_slice(), [peer]);
        }
    }
});
