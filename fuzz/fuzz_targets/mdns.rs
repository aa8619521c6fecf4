//! Packets of multicast DNS, which anybody on the network can send: read, written again, and heard by an agent.
#![no_main]

use haulout_mesh::mdns::hear;
use haulout_mesh::mdns::message::{Kind, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // A kind that agents do not know is not kept.
    if let Ok(message) = Message::parse(input)
        && message.questions.iter().all(|question| question.kind != Kind::Other)
        && let Some(bytes) = message.to_bytes()
    {
        assert_eq!(Message::parse(&bytes), Ok(message));
    }
    hear(input);
});
