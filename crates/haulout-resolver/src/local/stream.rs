//! A NAR of this machine, streamed to the local Nix.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use haulout_mesh::NarKey;
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::LocalStore;
use super::source::{Place, Source};
use crate::transfer::CutReason;

/// Bytes read at a time.
const READ: usize = 256 << 10;
/// Pieces that may wait for a slow client.
const AHEAD: usize = 3;

impl LocalStore {
    /// The NAR from `from` on, read by one blocking thread. Read whole, its
    /// hash is checked and the last piece held back until it holds; `None` if
    /// the path is not here or its files are not the ones described.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        key: NarKey,
        from: u64,
    ) -> Option<(Place, Receiver<Result<Bytes, CutReason>>)> {
        let store = Arc::clone(self);
        let source = tokio::task::spawn_blocking(move || store.source(&key)).await.ok()?.ok()?;
        let place = source.place();
        let (out, pieces) = channel(AHEAD);
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(why) = store.read_all(&source, key, from, &out) {
                store.layouts.forget(&key.path);
                // Without a reader there is nobody to tell.
                let _ = out.blocking_send(Err(why));
            }
            source.release();
        });
        Some((place, pieces))
    }

    /// A range of the NAR for a peer, read by one blocking thread. What is given to peers is theirs to check.
    pub(crate) fn read_range(
        self: &Arc<Self>,
        key: NarKey,
        range: Range<u64>,
    ) -> Receiver<io::Result<Bytes>> {
        let (out, pieces) = channel(AHEAD);
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let result = store.source(&key).and_then(|source| {
                let result = store.read_some(&source, range, &out);
                source.release();
                result
            });
            if let Err(error) = result {
                store.layouts.forget(&key.path);
                // Without a reader there is nobody to tell.
                let _ = out.blocking_send(Err(error));
            }
        });
        pieces
    }

    fn read_some(
        &self,
        source: &Source,
        range: Range<u64>,
        out: &Sender<io::Result<Bytes>>,
    ) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(READ);
            let mut buffer = vec![0; left.min(READ)];
            let read = source.read_at(at, &mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer.truncate(read);
            at += read as u64;
            self.stats.bytes_out.add(read as u64);
            if out.blocking_send(Ok(buffer.into())).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_all(
        &self,
        source: &Source,
        key: NarKey,
        from: u64,
        out: &Sender<Result<Bytes, CutReason>>,
    ) -> Result<(), CutReason> {
        let mut hash = (from == 0).then(|| Context::new(&SHA256));
        let mut at = from;
        while at < key.nar_size {
            let left = usize::try_from(key.nar_size - at).unwrap_or(READ);
            let mut buffer = vec![0; left.min(READ)];
            let read = source.read_at(at, &mut buffer).map_err(|_| CutReason::Changed)?;
            if read == 0 {
                return Err(CutReason::Changed);
            }
            buffer.truncate(read);
            at += read as u64;
            if let Some(hash) = &mut hash {
                hash.update(&buffer);
            }
            if at == key.nar_size
                && let Some(hash) = hash.take()
                && hash.finish().as_ref() != key.nar_hash.as_bytes()
            {
                return Err(CutReason::WrongHash);
            }
            match source.place() {
                Place::Store => self.stats.bytes_store.add(read as u64),
                Place::Cache => self.stats.bytes_cache.add(read as u64),
            }
            if out.blocking_send(Ok(buffer.into())).is_err() {
                // The client went away.
                return Ok(());
            }
        }
        Ok(())
    }
}
