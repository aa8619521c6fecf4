//! "Who holds this?": both ends of the question to the homes of an entry.
//!
//! They answer from memory and ask nobody. What they name is a hint: the named peer's own answer decides.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use haulout_swarm::portions::merge;
use haulout_swarm::{Fault, PeerId};
use quinn::SendStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::ask::{Patience, on_mesh, short};
use crate::error::RequestError;
use crate::frames::{NAMED_BYTES_MAX, Request, decode_named, encode_named};
use crate::registry::{Link, Shared};
use crate::serve::body;

/// The longest that homes are waited for: what nobody holds must be known soon, and a home that does not answer is skipped
/// from then on. On a LAN they take a millisecond.
const LOCATE_MAX: Duration = Duration::from_millis(150);
/// How long the others are waited for once one has named somebody: they may know more, or know better.
const OTHERS_WAIT: Duration = Duration::from_millis(10);

/// Answers who holds an entry.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    send: &mut SendStream,
    prefix: u32,
) -> io::Result<()> {
    let (known, asker) = (Arc::clone(shared), Arc::clone(link));
    let named = tokio::task::spawn_blocking(move || encode_named(&known.named(&asker, prefix)));
    body(send, named.await.unwrap_or_default()).await
}

/// Asks the homes of an entry, all at once; who they name is known by hearsay from then on.
pub(crate) async fn locate(shared: &Arc<Shared>, prefix: u32) {
    let homes = shared.homes_of(prefix);
    if homes.is_empty() {
        return;
    }
    let task_shared = Arc::clone(shared);
    let answers = on_mesh(shared, async move { Ok(ask_all(&task_shared, homes, prefix).await) });
    let named = merge(&answers.await.unwrap_or_default());
    shared.heard_of(prefix, named);
}

async fn ask_all(shared: &Arc<Shared>, homes: Vec<PeerId>, prefix: u32) -> Vec<Vec<PeerId>> {
    let mut asked = JoinSet::new();
    for home in homes {
        let shared = Arc::clone(shared);
        asked.spawn(async move { ask(&shared, home, prefix).await });
    }
    let mut until = Instant::now() + LOCATE_MAX;
    let mut answers = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await {
        if let Ok(Some(named)) = answer {
            answers.push(named);
            until = until.min(Instant::now() + OTHERS_WAIT);
        }
    }
    answers
}

/// Whom one home names.
async fn ask(shared: &Arc<Shared>, home: PeerId, prefix: u32) -> Option<Vec<PeerId>> {
    let patience = Patience::until(LOCATE_MAX);
    let body = short(shared, &home, Request::Locate { prefix }, NAMED_BYTES_MAX, patience).await;
    let named = body.and_then(|body| {
        decode_named(&body).map_err(|error| RequestError::Protocol(error.to_string()))
    });
    if let Err(RequestError::Protocol(reason)) = &named {
        shared.blame(&home, Fault::ProtocolViolation, Some(reason));
    }
    named.ok()
}
