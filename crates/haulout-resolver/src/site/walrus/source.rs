//! The site as a source of slivers: what the client of storage nodes reads through.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use haulout_walrus::{Blame, HttpError, Node, NodeError, Piece, ReadError, Source};
use redstuff::bcs::Wire;
use redstuff::{AxisKind, BlobId, Metadata, PairIndex, ShardCount};

use super::names::{metadata_object, sliver_object};
use super::outside::Walrus;
use crate::site::SiteError;

/// Slivers and metadata from this machine, from neighbours, and only then from nodes.
pub(super) struct SiteSource(pub(super) Arc<Walrus>);

impl fmt::Debug for SiteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteSource").field("outside", &self.0.id).finish_non_exhaustive()
    }
}

/// What the site could not bring, as a storage node would have said it.
fn as_node(error: SiteError) -> NodeError {
    match error {
        SiteError::Absent => NodeError::Refused {
            status: 404,
            reason: None,
            message: "its node does not have it".to_owned(),
            retry_after: None,
        },
        SiteError::Failed => HttpError::Cut("nobody could bring it".into()).into(),
    }
}

impl Source for SiteSource {
    /// Not asked: [`SiteSource::metadata_anywhere`] is.
    fn metadata<'a>(
        &'a self,
        _node: &'a Arc<Node>,
        _n: ShardCount,
        blob: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        let object = metadata_object(self.0.id, blob);
        self.0.site.document(object).map(|answer| answer.map_err(as_node)).boxed()
    }

    fn metadata_anywhere<'a>(
        &'a self,
        _n: ShardCount,
        blob: &'a BlobId,
    ) -> Option<BoxFuture<'a, Result<Bytes, ReadError>>> {
        let find = async move {
            if let Some(metadata) = self.0.metadata_here(blob).await {
                return Ok(metadata.with_id().to_bcs().into());
            }
            match self.0.site.document(metadata_object(self.0.id, blob)).await {
                Ok(raw) => Ok(raw),
                Err(SiteError::Absent) => Err(ReadError::NotFound(*blob)),
                // The nodes' own words, for the report.
                Err(SiteError::Failed) => {
                    let metadata = self.0.direct.metadata(blob).await?;
                    Ok(metadata.with_id().to_bcs().into())
                }
            }
        };
        Some(find.boxed())
    }

    fn sliver<'a>(
        &'a self,
        _node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        let object = sliver_object(self.0.id, metadata, axis, pair);
        async move {
            let object = object.ok_or_else(|| as_node(SiteError::Failed))?;
            let stream = self.0.site.stream(object.clone(), 0);
            // A neighbour's word that the node does not serve it is not believed: this agent has asked too.
            let in_nodes_words =
                |error| self.0.failure(&object.key.id).unwrap_or_else(|| as_node(error));
            let pieces: Vec<Bytes> = stream.try_collect().await.map_err(in_nodes_words)?;
            let whole = match <[Bytes; 1]>::try_from(pieces) {
                Ok([whole]) => whole,
                Err(pieces) => pieces.concat().into(),
            };
            if let Some(from) = self.0.site.attribute(&object) {
                self.0.counts.read(from, whole.len() as u64);
            }
            Ok(whole)
        }
        .boxed()
    }

    /// A home checks what it fetches before it lets go of its end, and what it kept when it reads it.
    fn is_checked(&self, metadata: &Metadata, axis: AxisKind, pair: PairIndex) -> bool {
        let object = sliver_object(self.0.id, metadata, axis, pair);
        object.is_some_and(|object| self.0.site.is_own(&object))
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// Kept and announced like what this agent fetched, so that others need not make it again.
    fn rebuilt(&self, metadata: &Metadata, axis: AxisKind, pair: PairIndex, raw: Bytes) {
        if let Some(object) = sliver_object(self.0.id, metadata, axis, pair) {
            self.0.keep(object.key.id, raw);
        }
    }

    /// Homes check what they fetch before its end leaves them, so what is false became so on the way.
    fn wrong<'a>(&'a self, what: Piece<'a>) -> BoxFuture<'a, Blame> {
        async move {
            let object = match what {
                Piece::Metadata(blob) => Some(metadata_object(self.0.id, blob)),
                Piece::Sliver(metadata, axis, pair) => {
                    sliver_object(self.0.id, metadata, axis, pair)
                }
            };
            let Some(object) = object else { return Blame::Node };
            if self.0.site.came_from_here(&object) {
                self.0.drop_damaged(object.key.id).await;
            }
            let liars = self.0.site.find_liars(&object).await;
            self.0.counts.found_liars(liars as u64);
            Blame::OnTheWay
        }
        .boxed()
    }
}
