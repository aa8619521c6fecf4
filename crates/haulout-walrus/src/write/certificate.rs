//! From confirmations to a certificate.

use futures_util::{
    FutureExt,
    stream::{self, StreamExt},
};
use redstuff::{
    BlobId,
    bcs::Wire,
    messages::{
        BlobPersistence, Confirmation, ConfirmationCertificate, ProtocolMessage, SignedMessage,
    },
};

use super::{WriteError, upload::persistently};
use crate::{
    Committee,
    bls::{self, BlsError, PublicKey, Signature},
    client::Nodes,
    node::{NodeError, Verdict},
};

/// Nodes asked for a confirmation at the same time.
const PARALLEL: usize = 64;

/// What came of asking all nodes.
#[derive(Debug)]
pub(super) enum Collected {
    /// A quorum confirmed.
    Enough(ConfirmationCertificate),
    /// It did not.
    TooFew {
        /// Shards of those that did.
        reached: u32,
        /// Nodes that say they miss slivers.
        incomplete: Vec<usize>,
        /// What one of the others said.
        failure: Option<String>,
    },
}

/// What a node answered.
enum Word {
    Confirmed(Signature),
    Incomplete,
    LaterEpoch,
    Refused(String),
}

/// Asks all nodes until a quorum has confirmed. Only signatures that verify count.
pub(super) async fn collect(
    committee: &Committee,
    nodes: &Nodes,
    blob: BlobId,
    persistence: BlobPersistence,
) -> Result<Collected, WriteError> {
    let content = Confirmation { blob, persistence };
    let expected = ProtocolMessage { epoch: committee.epoch, content }.to_bcs();
    let ask = |position: usize| {
        let (expected, content) = (&expected, &content);
        async move { (position, word(committee, nodes, position, expected, content).await) }.boxed()
    };
    let asking: Vec<_> = (0..committee.members.len()).map(ask).collect();
    let mut words = stream::iter(asking).buffer_unordered(PARALLEL);
    let (mut signers, mut incomplete, mut later, mut failure) = (Vec::new(), Vec::new(), 0, None);
    while let Some((position, word)) = words.next().await {
        match word {
            Word::Confirmed(signature) => signers.push((position, signature)),
            Word::Incomplete => incomplete.push(position),
            Word::LaterEpoch => later += committee.weight([position]),
            Word::Refused(text) => failure = Some(text),
        }
        if committee.is_quorum(weight(committee, &signers)) {
            return assemble(committee, signers, expected.clone()).map(Collected::Enough);
        }
        if committee.is_above_validity(later) {
            return Err(WriteError::EpochChanged(blob));
        }
    }
    Ok(Collected::TooFew { reached: weight(committee, &signers), incomplete, failure })
}

fn weight(committee: &Committee, signers: &[(usize, Signature)]) -> u32 {
    committee.weight(signers.iter().map(|(position, _)| *position))
}

async fn word(
    committee: &Committee,
    nodes: &Nodes,
    position: usize,
    expected: &[u8],
    content: &Confirmation,
) -> Word {
    let Some(node) = nodes.get(position) else { return Word::Refused("unusable".to_owned()) };
    let ask = || node.client.confirmation(&content.blob, &content.persistence);
    match persistently(ask).await {
        Ok(signed) => check(committee, position, signed, expected),
        Err(error) if error.verdict() == Verdict::Incomplete => Word::Incomplete,
        Err(error) => Word::Refused(describe(&error)),
    }
}

fn describe(error: &NodeError) -> String {
    error.to_string()
}

/// A signature counts if it is the member's, over exactly the message that is to be certified.
fn check(committee: &Committee, position: usize, signed: SignedMessage, expected: &[u8]) -> Word {
    if signed.message != expected {
        let epoch = ProtocolMessage::<Confirmation>::from_bcs(&signed.message);
        return match epoch {
            Ok(message) if message.epoch > committee.epoch => Word::LaterEpoch,
            _ => Word::Refused("a confirmation of something else".to_owned()),
        };
    }
    let Some(member) = committee.members.get(position) else {
        return Word::Refused("no member of the committee".to_owned());
    };
    let verified = PublicKey::from_bytes(&member.bls_public_key)
        .and_then(|key| key.verify(&signed.message, &signed.signature));
    match verified {
        Ok(()) => Word::Confirmed(signed.signature),
        Err(error) => Word::Refused(error.to_string()),
    }
}

fn assemble(
    committee: &Committee,
    mut signers: Vec<(usize, Signature)>,
    message: Vec<u8>,
) -> Result<ConfirmationCertificate, WriteError> {
    signers.sort_unstable_by_key(|(position, _)| *position);
    let signatures: Vec<_> = signers.iter().map(|(_, signature)| *signature).collect();
    // All of them were verified, so they are points and there are some.
    let signature = bls::aggregate(&signatures).map_err(|_| WriteError::Worker)?;
    let index = |(position, _): (usize, _)| u16::try_from(position).unwrap_or(u16::MAX);
    let signers = signers.into_iter().map(index).collect();
    let certificate = ConfirmationCertificate { signers, message, signature };
    check_certificate(committee, &certificate).map_err(|_| WriteError::Worker)?;
    Ok(certificate)
}

/// Checks a certificate as the contract does: distinct members, a quorum, a good aggregate.
///
/// # Errors
/// It would not be accepted.
pub fn check_certificate(
    committee: &Committee,
    certificate: &ConfirmationCertificate,
) -> Result<(), BlsError> {
    let mut keys = Vec::with_capacity(certificate.signers.len());
    if !certificate.signers.is_sorted_by(|one, next| one < next) {
        return Err(BlsError::Signature);
    }
    for &signer in &certificate.signers {
        let member = committee.members.get(usize::from(signer)).ok_or(BlsError::PublicKey)?;
        keys.push(PublicKey::from_bytes(&member.bls_public_key)?);
    }
    let weight = committee.weight(certificate.signers.iter().map(|&signer| signer.into()));
    if !committee.is_quorum(weight) {
        return Err(BlsError::Signature);
    }
    bls::verify_aggregate(&keys, &certificate.message, &certificate.signature)
}
