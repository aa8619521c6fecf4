use super::*;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

fn sample() -> Message {
    let host = name("haulout-0011.local");
    let instance = name("haulout-0011._haulout._udp.local");
    let record = |name: &Name, flush, data| Record { name: name.clone(), flush, ttl: 120, data };
    Message {
        response: true,
        records: vec![
            record(&name("_haulout._udp.local."), false, Data::Ptr(instance.clone())),
            record(&instance, true, Data::Srv { port: 5299, target: host.clone() }),
            record(&instance, true, Data::Txt(Box::from(&b"\x03v=1\x05k=abc\x04flag"[..]))),
            record(&host, true, Data::Addr("192.168.1.9".parse().unwrap())),
            record(&host, true, Data::Addr("fe80::9".parse().unwrap())),
        ],
        ..Message::default()
    }
}

#[test]
fn messages_round_trip() {
    let message = sample();
    let bytes = message.to_bytes().unwrap();
    assert!(bytes.len() < 200, "names are compressed: {}", bytes.len());
    assert_eq!(Message::parse(&bytes), Ok(message));
    let question = |kind, unicast| Question { name: name("_Haulout._UDP.local"), kind, unicast };
    let message = Message {
        truncated: true,
        questions: vec![question(Kind::Ptr, false), question(Kind::Aaaa, true)],
        records: sample().records[..1].to_vec(),
        ..Message::default()
    };
    assert_eq!(Message::parse(&message.to_bytes().unwrap()), Ok(message));
}

/// Byte by byte as RFC 6762 §6.1 and RFC 4034 §4.1.2 have it; the reader leaves such records out.
#[test]
fn what_there_is_not_is_said_as_nsec() {
    for (v4, v6, bits) in [
        (true, false, &[0, 1, 0x40][..]),
        (false, true, &[0, 4, 0, 0, 0, 8]),
        (true, true, &[0, 4, 0x40, 0, 0, 8]),
    ] {
        let record = Record {
            name: name("h.local"),
            flush: true,
            ttl: 120,
            data: Data::OnlyAddrs { v4, v6 },
        };
        let message = Message { response: true, records: vec![record], ..Message::default() };
        let bytes = message.to_bytes().unwrap();
        let data = &bytes[12 + 9..];
        assert_eq!(data[..8], [0, 47, 0x80, 1, 0, 0, 0, 120]);
        let length = usize::from(u16::from_be_bytes([data[8], data[9]]));
        assert_eq!(data[10..].len(), length, "the length says how long it is");
        assert!(data.ends_with(bits), "{data:?}");
        assert!(Message::parse(&bytes).unwrap().records.is_empty());
    }
}

#[test]
fn names_match_whatever_their_case_and_know_their_service() {
    let service = name("_haulout._udp.local.");
    assert_eq!(name("_HAULOUT._udp.LOCAL"), service);
    let instance = service.child("Some.One's cache").unwrap();
    assert!(instance.is_instance_of(&service));
    assert_eq!(instance.to_string(), "some.one\\'s cache._haulout._udp.local.");
    assert!(!service.is_instance_of(&service) && !service.is_instance_of(&instance));
    assert!(!name("a.b._haulout._udp.local").is_instance_of(&service));
    assert_eq!(Name::from_text("a..b"), None);
    assert_eq!(Name::from_text(&"x".repeat(64)), None);
    assert_eq!(Name::from_text(&["abcdefg"; 32].join(".")), None);
    assert!(Name::from_text(&["abcdefg"; 31].join(".")).is_some());
}

#[test]
fn hostile_packets_are_refused() {
    let good = sample().to_bytes().unwrap();
    for end in 0..good.len() {
        assert!(Message::parse(&good[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(Message::parse(&vec![0; PACKET_MAX + 1]), Err(MessageError::TooLarge));
    let mut liar = good.clone();
    liar[4..12].fill(0xff);
    assert_eq!(Message::parse(&liar), Err(MessageError::TooLarge));
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(Message::parse(&update), Err(MessageError::Foreign));
    let mut refused = good.clone();
    refused[3] |= 5;
    assert_eq!(Message::parse(&refused), Err(MessageError::Foreign));
    // A name that points at itself, and two that point at each other.
    for names in [&[0xc0, 12][..], &[0xc0, 14, 0xc0, 12]] {
        let mut circle = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        circle.extend_from_slice(names);
        circle.extend_from_slice(&[0, 12, 0, 1]);
        assert_eq!(Message::parse(&circle), Err(MessageError::Malformed), "{names:?}");
    }
    // A name of many pointers, each to the one before, in as many questions as fit.
    let mut deep = vec![0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0, 0];
    deep.extend_from_slice(&[1, b'a', 0, 0, 12, 0, 1]);
    while deep.len() < PACKET_MAX - 8 {
        let before = u16::try_from(deep.len() - if deep.len() == 19 { 7 } else { 8 }).unwrap();
        deep.extend_from_slice(&[1, b'b']);
        deep.extend_from_slice(&(before | 0xc000).to_be_bytes());
        deep.extend_from_slice(&[0, 12, 0, 1]);
    }
    assert!(Message::parse(&deep).is_err());
}

proptest! {
    #[test]
    fn any_bytes_parse_or_not_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0..200_usize, to in any::<u8>()) {
        let mut bytes = sample().to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(message.records.len() <= 5);
        }
    }
}
