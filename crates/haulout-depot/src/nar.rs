//! A NAR out of packs, checked on the way.

use crate::{Blobs, DepotError, Kind};
use bytes::Bytes;
use haulout_archive::{
    entry::{Compression, Extent, Path},
    segment::BlobRecord,
};
use haulout_nix::nar::{NarDigest, NarHasher};
use redstuff::BlobId;
use std::{collections::VecDeque, sync::Arc};
use tokio::task::JoinHandle;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Bytes of a pack asked for at a time: some slivers of a full pack at 1,000 shards.
const PIECE_BYTES: u64 = 2 << 20;

/// Pieces that are fetched while earlier ones are decompressed.
const AHEAD: usize = 4;

/// Most bytes handed on at a time, and so what is held back until the hashes are known to be right.
const CHUNK_BYTES: usize = 128 << 10;

/// Largest zstd window that is accepted, as a power of two: what the writer's level can ask for.
const WINDOW_LOG_MAX: u32 = 27;

type Fetch = JoinHandle<Result<Bytes, DepotError>>;

/// A NAR as it comes. The last bytes are given only when both hashes and the size were right: a
/// reader that saw the end has the right NAR. (See [`NarStream::root_only`].)
pub struct NarStream {
    blobs: Arc<dyn Blobs>,
    what: String,
    wanted: VecDeque<(BlobId, u64, std::ops::Range<u64>)>,
    fetching: VecDeque<Fetch>,
    decoder: Option<Decoder<'static>>,
    /// Compressed bytes not decoded yet.
    input: Bytes,
    /// Whether the decoder is at the end of a frame.
    between_frames: bool,
    /// The chunk that is held back.
    held: Option<Bytes>,
    /// Bytes decoded so far.
    given: u64,
    /// `None`: somebody else checks NarHash.
    hasher: Option<NarHasher>,
    tree: blake3::Hasher,
    expected: (NarDigest, [u8; 32]),
    finished: bool,
}

impl std::fmt::Debug for NarStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NarStream")
            .field("what", &self.what)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl NarStream {
    pub(crate) fn new(
        blobs: Arc<dyn Blobs>,
        path: &Path,
        pieces: Vec<(BlobRecord, Extent)>,
    ) -> Result<Self, DepotError> {
        let what = path.info.path.to_string();
        let mut wanted = VecDeque::new();
        for (record, extent) in pieces {
            let end = extent.offset.saturating_add(extent.length);
            if end > record.size {
                return Err(DepotError::new(
                    Kind::Corrupt,
                    format!("the index puts {what} outside of its pack"),
                ));
            }
            let mut at = extent.offset;
            while at < end {
                // Cut at multiples of the piece, so that neighbours share what a cache keeps.
                let next = (at / PIECE_BYTES + 1).saturating_mul(PIECE_BYTES).min(end);
                wanted.push_back((BlobId(record.blob_id), record.size, at..next));
                at = next;
            }
        }
        let decoder = match path.nar.compression {
            Compression::None => None,
            Compression::Zstd => Some(decoder()?),
        };
        let digest = NarDigest { hash: path.info.nar_hash, size: path.info.nar_size };
        Ok(Self {
            blobs,
            what,
            wanted,
            fetching: VecDeque::new(),
            decoder,
            input: Bytes::new(),
            between_frames: true,
            held: None,
            given: 0,
            hasher: Some(NarHasher::new()),
            tree: blake3::Hasher::new(),
            expected: (digest, path.nar.root),
            finished: false,
        })
    }

    /// Checks the size and the BLAKE3 root, and leaves NarHash to whoever checks it anyway for all
    /// that it passes on.
    #[must_use]
    pub fn root_only(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// When a piece cannot be had, or the NAR is not the one that the index promises. Nothing
    /// comes after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DepotError> {
        if self.finished {
            return Ok(None);
        }
        match self.advance().await {
            Ok(chunk) => {
                self.finished = chunk.is_none();
                Ok(chunk)
            }
            Err(error) => {
                self.finished = true;
                Err(error)
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, DepotError> {
        loop {
            match self.decode().await? {
                Some(chunk) => {
                    self.given += chunk.len() as u64;
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&chunk);
                    }
                    self.tree.update(&chunk);
                    if self.given > self.expected.0.size {
                        return Err(self.corrupt("is longer than the index says"));
                    }
                    if let Some(before) = self.held.replace(chunk) {
                        return Ok(Some(before));
                    }
                }
                None => {
                    // The end: the held chunk is given if all is well, and then nothing more.
                    let Some(last) = self.held.take() else { return Ok(None) };
                    let (digest, root) = &self.expected;
                    let hashed = self.hasher.take().map(NarHasher::finish);
                    let right = self.given == digest.size
                        && hashed.is_none_or(|hashed| hashed == *digest)
                        && self.tree.finalize() == *root;
                    if !right {
                        return Err(self.corrupt("is not the one in the index"));
                    }
                    return Ok(Some(last));
                }
            }
        }
    }

    /// The next decompressed chunk, unchecked; `None` at the end.
    async fn decode(&mut self) -> Result<Option<Bytes>, DepotError> {
        let Some(decoder) = &mut self.decoder else {
            return self.fetch().await;
        };
        // At least one byte, so that more than was promised is noticed.
        let left = self.expected.0.size.saturating_sub(self.given);
        let room = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.clamp(1, CHUNK_BYTES));
        let mut out = Vec::with_capacity(room);
        loop {
            if self.input.is_empty() {
                match next_piece(&self.blobs, &mut self.wanted, &mut self.fetching).await? {
                    Some(bytes) => self.input = bytes,
                    None if !self.between_frames => return Err(self.corrupt("is cut short")),
                    None if out.is_empty() => return Ok(None),
                    None => return Ok(Some(out.into())),
                }
            }
            let mut input = InBuffer::around(&self.input);
            let before = out.len();
            let mut output = OutBuffer::around_pos(&mut out, before);
            let hint = decoder.run(&mut input, &mut output);
            let (taken, given) = (input.pos(), output.pos() - before);
            let Ok(hint) = hint else {
                return Err(self.corrupt("is not compressed as it should be"));
            };
            self.between_frames = hint == 0;
            self.input = self.input.slice(taken..);
            if out.len() >= room {
                return Ok(Some(out.into()));
            }
            if taken == 0 && given == 0 && !self.input.is_empty() {
                return Err(self.corrupt("cannot be decompressed"));
            }
        }
    }

    async fn fetch(&mut self) -> Result<Option<Bytes>, DepotError> {
        next_piece(&self.blobs, &mut self.wanted, &mut self.fetching).await
    }

    fn corrupt(&self, how: &str) -> DepotError {
        DepotError::new(Kind::Corrupt, format!("the NAR of {} {how}", self.what))
    }

    /// Reads all of it into `out`.
    ///
    /// # Errors
    /// As [`NarStream::next`], and from `out`.
    pub async fn write_to(
        mut self,
        out: &mut (dyn std::io::Write + Send),
    ) -> Result<(), DepotError> {
        while let Some(chunk) = self.next().await? {
            out.write_all(&chunk).map_err(|error| DepotError::local("write a NAR", error))?;
        }
        Ok(())
    }
}

impl Drop for NarStream {
    fn drop(&mut self) {
        self.fetching.iter().for_each(JoinHandle::abort);
    }
}

fn decoder() -> Result<Decoder<'static>, DepotError> {
    let mut decoder = Decoder::new().map_err(|error| DepotError::local("start zstd", error))?;
    decoder
        .set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX))
        .map_err(|error| DepotError::local("start zstd", error))?;
    Ok(decoder)
}

/// Keeps [`AHEAD`] pieces on their way and gives the next one.
async fn next_piece(
    blobs: &Arc<dyn Blobs>,
    wanted: &mut VecDeque<(BlobId, u64, std::ops::Range<u64>)>,
    fetching: &mut VecDeque<Fetch>,
) -> Result<Option<Bytes>, DepotError> {
    while fetching.len() < AHEAD {
        let Some((blob, size, range)) = wanted.pop_front() else { break };
        let blobs = Arc::clone(blobs);
        fetching.push_back(tokio::spawn(async move { blobs.read(blob, size, range).await }));
    }
    let Some(first) = fetching.pop_front() else { return Ok(None) };
    match first.await {
        Ok(bytes) => bytes.map(Some),
        Err(_) => Err(DepotError::new(Kind::Unavailable, "reading a pack was given up")),
    }
}
