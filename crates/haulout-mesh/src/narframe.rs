//! Frames of a NAR range: how the bytes are cut, when they are compressed, and what is kept for the next asker.
//!
//! A range is sent as frames `{ encoding u8, length u32, data }`. Frames end at multiples of 256 KiB of the NAR (and at the
//! end of the range), so both sides know every frame's raw length without being told, and the same frames come up again
//! whatever range is asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haulout_nix::NarHash;

use crate::api::NarReader;
use crate::frames::FrameError;

/// Raw bytes of a full frame: small enough to start decoding early, large enough for zstd and for few wake-ups.
pub const FRAME_SIZE: usize = 256 << 10;
/// Bytes before a frame's data: encoding and length.
pub const FRAME_HEADER_LEN: usize = 5;
/// zstd level: 1 compresses at about 490 MiB/s to a third; higher levels cost more CPU than the link saves.
const ZSTD_LEVEL: i32 = 1;
/// Frames smaller than this are never worth compressing.
const COMPRESS_MIN: usize = 1 << 10;
/// A compressed frame is sent only if it saves at least an eighth: decompression costs the receiver about as much as
/// receiving that.
const SAVING_MIN: usize = 8;
/// After a frame that did not shrink, this many frames go raw before the next try (doubling up to the maximum).
const SKIP_FIRST: u32 = 2;
const SKIP_MAX: u32 = 32;
/// Idle processor time needed to spend some on compression, in cores.
const IDLE_CORES_MIN: f32 = 0.2;

/// How a frame's data is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The NAR's bytes as they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// A frame ready to be sent.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How `data` is encoded.
    pub encoding: Encoding,
    /// The bytes that travel.
    pub data: Bytes,
    /// How many bytes of the NAR they stand for.
    pub raw_len: usize,
}

impl Frame {
    /// The header that goes before the data.
    #[must_use]
    pub fn header(&self) -> [u8; FRAME_HEADER_LEN] {
        let encoding = match self.encoding {
            Encoding::Raw => 0,
            Encoding::Zstd => 1,
        };
        let [a, b, c, d] = u32::try_from(self.data.len()).unwrap_or(u32::MAX).to_be_bytes();
        [encoding, a, b, c, d]
    }
}

/// Reads a frame's header, given the raw length the frame must have.
///
/// # Errors
/// [`FrameError`] for an unknown encoding, a raw frame of another length, or a compressed one that did not shrink.
pub fn parse_header(
    header: [u8; FRAME_HEADER_LEN],
    raw_len: usize,
) -> Result<(Encoding, usize), FrameError> {
    let [encoding, a, b, c, d] = header;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    match encoding {
        0 if len == raw_len => Ok((Encoding::Raw, len)),
        0 => Err(FrameError::Bad("length of a raw frame")),
        1 if len > 0 && len < raw_len => Ok((Encoding::Zstd, len)),
        1 => Err(FrameError::Bad("length of a compressed frame")),
        _ => Err(FrameError::Bad("frame encoding")),
    }
}

/// Raw length of the frame that starts at `position` in a range that ends at `end`.
#[must_use]
pub const fn raw_len(position: u64, end: u64) -> usize {
    let size = FRAME_SIZE as u64;
    let boundary = (position / size).saturating_add(1).saturating_mul(size);
    let stop = if boundary < end { boundary } else { end };
    // At most FRAME_SIZE, so it fits.
    stop.saturating_sub(position) as usize
}

thread_local! {
    // A context costs several hundred KiB; blocking threads and the caller's workers are few and each keeps its own.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses, or `None` if it does not pay.
#[must_use]
pub fn compress(raw: &[u8]) -> Option<Bytes> {
    if raw.len() < COMPRESS_MIN {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        // A buffer of the largest useful size: zstd gives up early on what does not fit.
        let room = raw.len() - raw.len() / SAVING_MIN;
        let mut out = Vec::with_capacity(room);
        match slot.as_mut()?.compress_to_buffer(raw, &mut out) {
            Ok(len) if len < room => {
                // The buffer lives as long as the frame is cached: give back what was not needed.
                out.shrink_to_fit();
                Some(Bytes::from(out))
            }
            _ => None,
        }
    })
}

/// Decodes a frame's data to exactly `raw_len` bytes (at most [`FRAME_SIZE`]).
///
/// # Errors
/// [`FrameError::Bad`] if the data is no zstd frame or has another length.
pub fn decode(encoding: Encoding, data: Bytes, raw_len: usize) -> Result<Bytes, FrameError> {
    match encoding {
        Encoding::Raw if data.len() == raw_len => Ok(data),
        Encoding::Raw => Err(FrameError::Bad("length of a raw frame")),
        Encoding::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Decompressor::new().ok();
            }
            let decompressor = slot.as_mut().ok_or(FrameError::Bad("zstd context"))?;
            // The output is bounded by the buffer, whatever the frame claims.
            match decompressor.decompress(&data, raw_len.min(FRAME_SIZE)) {
                Ok(out) if out.len() == raw_len => Ok(Bytes::from(out)),
                _ => Err(FrameError::Bad("compressed frame")),
            }
        }),
    }
}

/// What the sender knows when it decides about a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// Bytes wait for this connection: the link (or the receiver) is slower than we are.
    pub send_blocked: bool,
    /// Idle processor time on this machine, in cores.
    pub idle_cores: f32,
}

/// What one stream has learnt about its NAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shrinkage {
    /// Frames to send raw before compression is tried again.
    skip: u32,
    /// Length of the next such pause.
    pause: u32,
}

impl Shrinkage {
    /// Takes the outcome of a try.
    pub fn tried(&mut self, shrank: bool) {
        if shrank {
            *self = Self::default();
        } else {
            self.pause = (self.pause * 2).clamp(SKIP_FIRST, SKIP_MAX);
            self.skip = self.pause;
        }
    }

    /// Counts a frame that was sent raw untried.
    pub fn skipped(&mut self) {
        self.skip = self.skip.saturating_sub(1);
    }
}

/// Whether to try compressing the next frame: when the link is the limit, there is a processor to spare, and the last
/// frames of this NAR did shrink.
///
/// Sends are "blocked" both by a slow link and by a busy machine; the idle time tells the two apart. On a busy machine
/// compression (2 CPU seconds per GiB, and 1 at the receiver) would take from what the transfer itself needs.
#[must_use]
pub fn worth_compressing(pressure: Pressure, shrinkage: Shrinkage) -> bool {
    pressure.send_blocked && pressure.idle_cores >= IDLE_CORES_MIN && shrinkage.skip == 0
}

/// Reads one frame and encodes it. `reader` must deliver all `raw_len` bytes.
///
/// # Errors
/// Whatever the reader says; [`io::ErrorKind::UnexpectedEof`] if the NAR is shorter than it should be.
pub fn produce(
    reader: &dyn NarReader,
    position: u64,
    raw_len: usize,
    try_compress: bool,
) -> io::Result<Frame> {
    let mut buffer = vec![0; raw_len.min(FRAME_SIZE)];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read_at(position + filled as u64, rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read.min(rest.len()),
        }
    }
    let compressed = if try_compress { compress(&buffer) } else { None };
    Ok(match compressed {
        Some(data) => Frame { encoding: Encoding::Zstd, data, raw_len },
        None => Frame { encoding: Encoding::Raw, data: Bytes::from(buffer), raw_len },
    })
}

/// Compressed frames for the next asker: bounded in bytes, forgotten some time after their last use.
///
/// Only full, aligned frames are kept (others do not come up again). Whoever asks has been admitted to the NAR before.
#[derive(Debug)]
pub struct FrameCache {
    bytes_max: usize,
    ttl: Duration,
    inner: Mutex<CacheInner>,
}

#[derive(Debug, Default)]
struct CacheInner {
    frames: HashMap<(NarHash, u64), Cached>,
    bytes: usize,
}

#[derive(Debug)]
struct Cached {
    data: Bytes,
    raw_len: usize,
    used: Instant,
}

impl FrameCache {
    /// An empty cache with these bounds.
    #[must_use]
    pub fn new(bytes_max: usize, ttl: Duration) -> Self {
        Self { bytes_max, ttl, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, CacheInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compressed frame at `position`, if it was kept and has this raw length.
    #[must_use]
    pub fn get(&self, nar: &NarHash, position: u64, raw_len: usize) -> Option<Frame> {
        let mut inner = self.lock();
        let cached = inner.frames.get_mut(&(*nar, position))?;
        if cached.raw_len != raw_len {
            return None;
        }
        cached.used = Instant::now();
        Some(Frame { encoding: Encoding::Zstd, data: cached.data.clone(), raw_len })
    }

    /// Keeps a compressed frame.
    pub fn put(&self, nar: &NarHash, position: u64, frame: &Frame) {
        if frame.encoding != Encoding::Zstd || frame.data.len() > self.bytes_max / 16 {
            return;
        }
        let mut inner = self.lock();
        if inner.bytes + frame.data.len() > self.bytes_max {
            inner.expire(Instant::now(), self.ttl / 2);
            // Still full of fresh frames: keep those, they are as likely to be asked again.
            if inner.bytes + frame.data.len() > self.bytes_max {
                return;
            }
        }
        let cached =
            Cached { data: frame.data.clone(), raw_len: frame.raw_len, used: Instant::now() };
        inner.bytes += frame.data.len();
        if let Some(old) = inner.frames.insert((*nar, position), cached) {
            inner.bytes -= old.data.len();
        }
    }

    /// Forgets what has not been used for long; called about once a second.
    pub fn expire(&self) {
        let mut inner = self.lock();
        if !inner.frames.is_empty() {
            inner.expire(Instant::now(), self.ttl);
        }
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl CacheInner {
    fn expire(&mut self, now: Instant, ttl: Duration) {
        let mut freed = 0;
        self.frames.retain(|_, cached| {
            let keep = now.saturating_duration_since(cached.used) < ttl;
            if !keep {
                freed += cached.data.len();
            }
            keep
        });
        self.bytes -= freed;
        if self.frames.is_empty() {
            self.frames.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        for (start, end) in [
            (0, 1),
            (0, size),
            (0, size + 1),
            (5, 3 * size),
            (size - 1, size + 1),
            (size, 2 * size),
        ] {
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
        let text: Vec<u8> =
            b"/nix/store/abc-hello ".iter().copied().cycle().take(FRAME_SIZE).collect();
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
            cache.put(&NarHash::from_bytes([1; 32]), at, &frame(at as u8));
        }
        assert!(cache.bytes() <= 64 << 10);
        assert!(cache.get(&NarHash::from_bytes([1; 32]), 0, FRAME_SIZE).is_some());
        assert!(cache.get(&NarHash::from_bytes([1; 32]), 0, 5).is_none());
        assert!(cache.get(&NarHash::from_bytes([2; 32]), 0, FRAME_SIZE).is_none());
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
}
