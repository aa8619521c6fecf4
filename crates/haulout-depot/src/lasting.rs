//! How long packs last: asked anew whenever an index is written.
//!
//! An index says how long its packs were paid for on the day it was written. Since then somebody may have
//! paid for more, or nobody has and a pack is gone. A level that is made of older ones promises what holds
//! now, and leaves out what cannot be had any more.

use crate::{Blobs, DepotError, OpenLevel, Standing};
use futures_util::{StreamExt, TryStreamExt, stream};
use haulout_archive::{Content, Entry, segment::BlobRecord};
use redstuff::BlobId;
use std::{collections::HashMap, sync::Arc};

/// Questions about blobs that are under way at the same time.
const AT_ONCE: usize = 8;

/// The pack tables of levels that become one, with their ends as they are now.
#[derive(Debug)]
pub(crate) struct Packs {
    tables: Vec<Vec<BlobRecord>>,
    epoch: u32,
}

impl Packs {
    /// Asks how the packs of these tables stand.
    pub(crate) async fn now(
        blobs: &dyn Blobs,
        mut tables: Vec<Vec<BlobRecord>>,
        epoch: u32,
    ) -> Result<Self, DepotError> {
        let mut ends: HashMap<([u8; 32], [u8; 32]), u32> = HashMap::new();
        for record in tables.iter().flatten() {
            ends.insert((record.blob_id, record.object), record.end_epoch);
        }
        let ask = |((blob, object), written)| async move {
            let end = match blobs.standing(BlobId(blob), object).await? {
                Standing::Until(end) => end,
                Standing::Gone => 0,
                Standing::Unknown => written,
            };
            Ok::<_, DepotError>(((blob, object), end))
        };
        let ends: HashMap<_, _> =
            stream::iter(ends).map(ask).buffer_unordered(AT_ONCE).try_collect().await?;
        for record in tables.iter_mut().flatten() {
            if let Some(end) = ends.get(&(record.blob_id, record.object)) {
                record.end_epoch = *end;
            }
        }
        Ok(Self { tables, epoch })
    }

    /// Whether all packs of an entry of table `from` are still stored. What names a pack that does not
    /// exist is for others to find.
    pub(crate) fn last(&self, from: usize, entry: &Entry) -> bool {
        let Content::Path(path) = &entry.content else { return true };
        path.nar.extents.iter().all(|extent| {
            let record = self.tables.get(from).and_then(|table| table.get(extent.pack as usize));
            record.is_none_or(|record| record.end_epoch > self.epoch)
        })
    }

    /// The tables.
    pub(crate) fn tables(&self) -> &[Vec<BlobRecord>] {
        &self.tables
    }
}

/// How many of the newest levels must become one so that none of those that stay has ended: the contract
/// keeps no level that has.
pub(crate) fn ended(levels: &[Arc<OpenLevel>], epoch: u32) -> usize {
    levels.iter().rposition(|level| level.record().end_epoch <= epoch).map_or(0, |last| last + 1)
}
