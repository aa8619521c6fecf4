//! The TXT record of an announcement, which anybody on the network can send.
#![no_main]

use haulout_mesh::txt::Announcement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|rdata: &[u8]| {
    if let Ok(announcement) = Announcement::from_rdata(rdata) {
        assert_eq!(Announcement::from_rdata(&announcement.to_rdata()), Ok(announcement));
    }
});
