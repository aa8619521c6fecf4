//! Proofs of archives on the wire: the question, and both ends of it.
//!
//! A proof is a document of plain bytes that whoever gets it checks by itself; the mesh carries it and believes nothing.
//! Its form is not the mesh's business (`docs/sui.md`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haulout_swarm::PeerId;
use haulout_swarm::rate::Urgency;
use quinn::SendStream;
use tokio::time::timeout;

use crate::ask::{Patience, link_to, short};
use crate::error::RequestError;
use crate::frames::{FrameError, MINOR_ARCHIVE, Reader, Request, Status};
use crate::registry::{Link, Shared};
use crate::serve::{status, write_paced};

/// Most bytes of a proof that one agent gives another. A real one has 1 to 100 kB, and 14 kB more for each day that
/// the asker's committee is behind, at most 100 of them.
pub const PROOF_BYTES_MAX: usize = 4 << 20;
/// Proofs on their way to peers at once, over all peers: they bound what answers hold in memory. Real ones are through
/// in a millisecond.
pub(crate) const PROOFS_AT_ONCE: usize = 4;
/// How long a question waits for its turn among them.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the proof may take to be found: it lies in memory.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// The question for an archive's newest proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofQuestion {
    /// The archive: its object id.
    pub archive: [u8; 32],
    /// The version of the object that the asker has a proof of; 0: none. Only a newer one is an answer.
    pub known: u64,
    /// The epoch of the newest committee that the asker knows; `None`: it has nothing but what is pinned.
    pub epoch: Option<u64>,
}

const FLAG_EPOCH: u8 = 1;

impl ProofQuestion {
    pub(crate) fn encode_to(&self, body: &mut Vec<u8>) {
        body.extend(self.archive);
        body.extend(self.known.to_be_bytes());
        body.push(if self.epoch.is_some() { FLAG_EPOCH } else { 0 });
        body.extend(self.epoch.unwrap_or_default().to_be_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FrameError> {
        let (archive, known) = (reader.array()?, reader.u64()?);
        // Other flags belong to later versions.
        let has_epoch = reader.u8()? & FLAG_EPOCH != 0;
        let epoch = reader.u64()?;
        Ok(Self { archive, known, epoch: has_epoch.then_some(epoch) })
    }
}

/// Answers a question for a proof.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    send: &mut SendStream,
    question: ProofQuestion,
) -> io::Result<()> {
    let turn = timeout(TURN_TIMEOUT, shared.proofs.acquire()).await;
    let Ok(Ok(_turn)) = turn else { return status(send, Status::Busy).await };
    let found = timeout(FIND_TIMEOUT, shared.serve.archive_proof(&link.asker(), question)).await;
    let proof = found.ok().flatten().filter(|proof| proof.len() <= PROOF_BYTES_MAX);
    let Some(proof) = proof else { return status(send, Status::No).await };
    let mut head = vec![Status::Ok.to_byte()];
    head.extend(u32::try_from(proof.len()).unwrap_or(u32::MAX).to_be_bytes());
    write_paced(shared, link, send, Urgency::Awaited, head.into(), proof).await.map(drop)
}

/// Asks a peer for a proof.
pub(crate) async fn ask(
    shared: &Arc<Shared>,
    peer: &PeerId,
    question: ProofQuestion,
    deadline: Duration,
) -> Result<Bytes, RequestError> {
    if link_to(shared, peer)?.minor < MINOR_ARCHIVE {
        return Err(RequestError::Unsupported);
    }
    let request = Request::ArchiveProof(question);
    short(shared, peer, request, PROOF_BYTES_MAX, Patience::until(deadline)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_one_form_and_later_versions_may_add_to_it() {
        for epoch in [None, Some(0), Some(u64::MAX)] {
            let question = ProofQuestion { archive: [7; 32], known: 5, epoch };
            let mut body = Vec::new();
            question.encode_to(&mut body);
            assert_eq!(body.len(), 49);
            let decode = |bytes: &[u8]| ProofQuestion::decode(&mut Reader::new(bytes, "question"));
            assert_eq!(decode(&body), Ok(question));
            assert!(decode(&body[..48]).is_err(), "cut short");
            body.extend(b"more");
            body[40] |= 0x80;
            assert_eq!(decode(&body), Ok(question), "what later versions add is ignored");
        }
    }
}
