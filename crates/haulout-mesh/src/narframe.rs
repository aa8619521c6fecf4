//! Frames of a NAR range: how the bytes are cut, when they are compressed, and what is kept for the next asker.
//!
//! A range is sent as frames `{ encoding u8, length u32, data }`. Frames end at multiples of 256 KiB of the NAR (and at the
//! end of the range), so both sides know every frame's raw length without being told, and the same frames come up again
//! whatever range is asked for.

mod buffers;
mod cache;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;

use bytes::Bytes;

use crate::api::NarReader;
use crate::frames::FrameError;
use buffers::Buffer;
pub(crate) use buffers::release as release_buffers;
pub use cache::FrameCache;

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
        let mut out = Buffer::take(room);
        match slot.as_mut()?.compress_to_buffer(raw, out.first_mut(room)) {
            // What is kept for the next asker is no larger than it must be.
            Ok(len) if len < room => out.as_ref().get(..len).map(Bytes::copy_from_slice),
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
    let raw_len = raw_len.min(FRAME_SIZE);
    let mut buffer = Buffer::take(raw_len);
    let raw = buffer.first_mut(raw_len);
    let mut filled = 0;
    while let Some(rest) = raw.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read_at(position + filled as u64, rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read.min(rest.len()),
        }
    }
    let compressed = if try_compress { compress(raw) } else { None };
    Ok(match compressed {
        Some(data) => Frame { encoding: Encoding::Zstd, data, raw_len },
        None => {
            let data = Bytes::from_owner(buffer).slice(..raw_len);
            Frame { encoding: Encoding::Raw, data, raw_len }
        }
    })
}
