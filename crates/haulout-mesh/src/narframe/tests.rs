//! Frames there and back, hostile ones, and the cache.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

struct Memory(Vec<u8>);
impl NarReader for Memory {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.0[(offset as usize).min(self.0.len())..];
        // Short reads are allowed.
        let len = rest.len().min(buf.len()).min(70_000);
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[test]
fn frames_end_at_boundaries_and_cover_the_range() {
    let size = FRAME_SIZE as u64;
    for (start, end) in
        [(0, 1), (0, size), (0, size + 1), (5, 3 * size), (size - 1, size + 1), (size, 2 * size)]
    {
        let mut at = start;
        while at < end {
            let len = raw_len(at, end) as u64;
            assert!(len > 0 && len <= size);
            assert!((at + len).is_multiple_of(size) || at + len == end);
            at += len;
        }
        assert_eq!(at, end);
    }
    assert_eq!(raw_len(u64::MAX - 5, u64::MAX), 5);
}

#[test]
fn a_frame_survives_both_encodings() {
    let text: Vec<u8> = b"/nix/store/abc-hello ".iter().copied().cycle().take(FRAME_SIZE).collect();
    let reader = Memory(text.clone());
    for compressed in [false, true] {
        let frame = produce(&reader, 0, FRAME_SIZE, compressed).unwrap();
        assert_eq!(frame.encoding == Encoding::Zstd, compressed);
        let (encoding, len) = parse_header(frame.header(), frame.raw_len).unwrap();
        assert_eq!(len, frame.data.len());
        assert_eq!(decode(encoding, frame.data, frame.raw_len).unwrap(), text);
    }
    assert_eq!(
        produce(&reader, 10, FRAME_SIZE, false).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn liars_about_length_and_bombs_are_refused() {
    assert!(parse_header([0, 0, 0, 0, 9], 10).is_err());
    assert!(parse_header([1, 0, 0, 0, 10], 10).is_err());
    assert!(parse_header([1, 0, 0, 0, 0], 10).is_err());
    assert!(parse_header([2, 0, 0, 0, 10], 10).is_err());
    assert!(parse_header([1, 0xff, 0xff, 0xff, 0xff], FRAME_SIZE).is_err());
    // A megabyte of zeros in a few bytes, announced as 100 bytes of NAR.
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
    assert!(decode(Encoding::Zstd, bomb.into(), 100_000).is_err());
    let short = zstd::bulk::compress(&[7; 50], 1).unwrap();
    assert!(decode(Encoding::Zstd, short.into(), 100).is_err());
    assert!(decode(Encoding::Zstd, Bytes::from_static(b"garbage"), 100).is_err());
}

#[test]
fn what_does_not_shrink_is_tried_less_and_less() {
    let noise: Vec<u8> = (0..FRAME_SIZE as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 ^ (at >> 3) as u8)
        .collect();
    let hashed: Vec<u8> =
        noise.chunks(32).flat_map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    assert!(compress(&hashed).is_none());
    let busy = Pressure { send_blocked: true, idle_cores: 1.0 };
    let mut shrinkage = Shrinkage::default();
    let mut tries = 0;
    for _ in 0..200 {
        if worth_compressing(busy, shrinkage) {
            tries += 1;
            shrinkage.tried(false);
        } else {
            shrinkage.skipped();
        }
    }
    assert!(tries < 12, "{tries}");
    shrinkage.tried(true);
    assert!(worth_compressing(busy, shrinkage));
    assert!(!worth_compressing(Pressure { send_blocked: false, ..busy }, shrinkage));
    assert!(!worth_compressing(Pressure { idle_cores: 0.0, ..busy }, shrinkage));
}

#[test]
fn the_cache_is_bounded_and_forgets() {
    let cache = FrameCache::new(64 << 10, Duration::from_millis(20));
    let frame = |byte: u8| Frame {
        encoding: Encoding::Zstd,
        data: vec![byte; 4096].into(),
        raw_len: FRAME_SIZE,
    };
    for at in 0..100 {
        cache.put(&[1; 32], at, &frame(at as u8));
    }
    assert!(cache.bytes() <= 64 << 10);
    assert!(cache.get(&[1; 32], 0, FRAME_SIZE).is_some());
    assert!(cache.get(&[1; 32], 0, 5).is_none());
    assert!(cache.get(&[2; 32], 0, FRAME_SIZE).is_none());
    std::thread::sleep(Duration::from_millis(30));
    cache.expire();
    assert_eq!(cache.bytes(), 0);
}

proptest! {
    #[test]
    fn hostile_headers_and_data_never_panic(header in any::<[u8; 5]>(), data in prop::collection::vec(any::<u8>(), 0..300), len in 0_usize..FRAME_SIZE) {
        if let Ok((encoding, size)) = parse_header(header, len) {
            prop_assert!(size <= len);
            let _ = decode(encoding, data.into(), len);
        }
    }
}
