//! Blobs for the gateway, which runs on a thread of its own: the work is done on the agent's runtime.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, poll_fn};
use haulout_gateway::{BlobBody, BlobError, BlobErrorKind, BlobStream, Cut};
use haulout_walrus::ReadError;
use redstuff::BlobId;
use tokio::sync::mpsc::channel;
use tokio::task::JoinHandle;

use super::SiteWalrus;

/// Pieces that may wait for a slow reader; each is a window at most.
const PIECES_AHEAD: usize = 1;

/// Work that ends with whoever waits for it.
struct Abort<T>(JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SiteWalrus {
    /// A blob as the gateway gives it.
    pub(crate) async fn body(&self, blob: BlobId) -> Result<BlobBody, BlobError> {
        let walrus = self.clone();
        let size = self.on_agent(async move { walrus.length(&blob).await }).await?;
        let walrus = self.clone();
        Ok(BlobBody::new(size, move |range| {
            let open: BoxFuture<'static, Result<BlobStream, BlobError>> = Box::pin(async move {
                let opening = walrus.clone();
                let pieces =
                    walrus.on_agent(async move { opening.stream(&blob, range).await }).await?;
                Ok(walrus.pumped(pieces))
            });
            open
        }))
    }

    async fn on_agent<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, BlobError> {
        let mut task = Abort(self.inner.site.inner.spawn(work));
        match (&mut task.0).await {
            Ok(done) => done.map_err(|error| refusal(&error)),
            Err(_) => Err(BlobError {
                kind: BlobErrorKind::Unavailable,
                text: "reading was cut off".to_owned(),
                hint: None,
            }),
        }
    }

    /// The pieces, fetched on the agent's runtime as they are taken.
    fn pumped(&self, mut pieces: BoxStream<'static, Result<Bytes, ReadError>>) -> BlobStream {
        let (sender, mut receiver) = channel(PIECES_AHEAD);
        self.inner.site.inner.spawn(async move {
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|error| Cut::new(in_words(&error)));
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        poll_fn(move |cx| receiver.poll_recv(cx)).boxed()
    }
}

/// An error and what caused it, in one line.
fn in_words(error: &ReadError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

fn refusal(error: &ReadError) -> BlobError {
    let (kind, hint) = match error {
        ReadError::NotFound(_) => (
            BlobErrorKind::NotFound,
            "check the id and the network; deleted and expired blobs are gone",
        ),
        ReadError::Forbidden(_) => (BlobErrorKind::Forbidden, "the storage nodes refuse it"),
        ReadError::Decode(..) => {
            (BlobErrorKind::Inconsistent, "whoever stored it encoded it wrongly")
        }
        ReadError::Chain(_) => {
            (BlobErrorKind::Unavailable, "is a full node of the network reachable?")
        }
        _ => (BlobErrorKind::Unavailable, "a third of the shards is enough; try again later"),
    };
    BlobError { kind, text: in_words(error), hint: Some(hint.to_owned()) }
}
