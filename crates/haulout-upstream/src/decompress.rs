//! From the bytes of a file to the bytes of a NAR.
//!
//! The decoders are ordinary blocking code and take most of a core for xz, so each runs on a
//! thread for blocking work, between two short queues. What comes out is counted: a decompression
//! bomb ends one byte after NarSize. What goes in is bounded by who feeds it.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use haulout_nix::Compression;
use tokio::sync::mpsc;

use crate::error::Trouble;

/// Bytes handed on at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that wait before and after a decoder.
const QUEUE_PIECES: usize = 4;
/// Most memory an xz file may ask for, in KiB: `xz -9` needs 65 MiB to decode.
const XZ_KIB_MAX: u32 = 160 * 1024;
/// Largest zstd window, as a power of two: 128 MiB, what every zstd accepts unless told otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// A stream of file or NAR bytes.
pub type ByteStream = BoxStream<'static, Result<Bytes, Trouble>>;

/// Whether there is a decoder for this method.
#[must_use]
pub const fn supported(compression: &Compression) -> bool {
    !matches!(compression, Compression::Other(_))
}

/// The NAR in a compressed file: exactly `nar_size` bytes, or an error. A file that holds more is
/// an error, and not one byte beyond `nar_size` is given out.
///
/// Must be called on a tokio runtime.
///
/// # Errors
/// [`Trouble::Compression`] for a method that is not known here.
pub fn decompress(
    compression: &Compression,
    nar_size: u64,
    file: impl Stream<Item = Result<Bytes, Trouble>> + Send + 'static,
) -> Result<ByteStream, Trouble> {
    let plain = match compression {
        Compression::None => file.boxed(),
        Compression::Other(name) => return Err(Trouble::Compression(name.to_string())),
        known => through_decoder(known.clone(), file.boxed()),
    };
    Ok(exactly(nar_size, plain))
}

/// Ends with an error unless exactly `size` bytes come.
fn exactly(size: u64, source: ByteStream) -> ByteStream {
    stream::unfold((Some(source), 0u64), move |(source, seen)| async move {
        let mut source = source?;
        match source.next().await {
            Some(Ok(bytes)) if bytes.len() as u64 > size - seen => {
                Some((Err(Trouble::TooLong(size)), (None, seen)))
            }
            Some(Ok(bytes)) => {
                let seen = seen + bytes.len() as u64;
                Some((Ok(bytes), (Some(source), seen)))
            }
            Some(Err(trouble)) => Some((Err(trouble), (None, seen))),
            None if seen < size => Some((Err(Trouble::Truncated(seen)), (None, seen))),
            None => None,
        }
    })
    .boxed()
}

fn through_decoder(compression: Compression, mut file: ByteStream) -> ByteStream {
    let (to_decoder, from_file) = mpsc::channel(QUEUE_PIECES);
    let (to_reader, mut plain) = mpsc::channel(QUEUE_PIECES);
    // Ends when the file does, or when the decoder lets go of the other end.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = to_decoder.closed() => return,
                piece = file.next() => {
                    let Some(piece) = piece else { return };
                    if to_decoder.send(piece).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    tokio::task::spawn_blocking(move || {
        let pipe = Pipe::new(from_file);
        let trouble = Arc::clone(&pipe.trouble);
        if let Err(error) = decode(&compression, pipe, &to_reader) {
            let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
            let trouble =
                trouble.unwrap_or_else(|| Trouble::Malformed(format!("{compression}: {error}")));
            let _ = to_reader.blocking_send(Err(trouble));
        }
    });
    stream::poll_fn(move |cx| plain.poll_recv(cx)).boxed()
}

/// Runs a decoder to the end; `Ok` also when nobody listens any more.
fn decode(
    compression: &Compression,
    pipe: Pipe,
    out: &mpsc::Sender<Result<Bytes, Trouble>>,
) -> io::Result<()> {
    let mut decoder = decoder(compression, pipe)?;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let mut filled = 0;
        while filled < piece.len() {
            match decoder.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let last = filled < piece.len();
        piece.truncate(filled);
        if !piece.is_empty() && out.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
        if last {
            return Ok(());
        }
    }
}

/// The decoder of a method, over any source of bytes. Concatenated files decode to the
/// concatenated contents, as the command line tools do and Nix does.
///
/// # Errors
/// An unknown method, or a decoder that cannot be set up.
pub fn decoder<'a>(
    compression: &Compression,
    file: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_KIB_MAX)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Brotli => Box::new(brotli_decompressor::Decompressor::new(file, 64 * 1024)),
        Compression::Other(name) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, name.to_string()));
        }
    })
}

/// The blocking end of a queue of pieces.
struct Pipe {
    pieces: mpsc::Receiver<Result<Bytes, Trouble>>,
    current: Bytes,
    /// What ended the file, kept because decoders turn errors into their own.
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Pipe {
    fn new(pieces: mpsc::Receiver<Result<Bytes, Trouble>>) -> Self {
        Self { pieces, current: Bytes::new(), trouble: Arc::default() }
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                None => break,
                Some(Ok(piece)) => self.current = piece,
                Some(Err(trouble)) => {
                    let text = trouble.to_string();
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
                    return Err(io::Error::other(text));
                }
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, n: usize) {
        self.current.advance(n);
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let n = ready.len().min(out.len());
        out[..n].copy_from_slice(&ready[..n]);
        self.consume(n);
        Ok(n)
    }
}
