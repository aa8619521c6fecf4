//! From full nodes to proofs: what is asked for, in which order, and what is kept.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sui_sdk_types::{Digest, Object};
use tokio::sync::Mutex;

use crate::{
    Network, ObjectId,
    network::{TrustAnchor, base58_encode},
    object_id::SYSTEM_STATE,
    proof::{
        EpochEnd, Evidence, Expected, ExpectedOwner, GenesisParts, ObjectProof, ProofError,
        StoreError, Trust, TrustStore, Verified, committee_file, genesis_committee,
        system_inner_id,
    },
    rpc::{CheckpointAt, Fault, Node, Nodes, RpcError, TxInfo},
};

/// Epochs walked in one go: since the first of mainnet, with years to spare.
const WALK_MAX: u64 = 5_000;
/// How often a transaction that is executed is looked for in a checkpoint, and how long
/// each wait is: a checkpoint follows within a second.
const CHECKPOINT_TRIES: u32 = 20;
const CHECKPOINT_WAIT: Duration = Duration::from_millis(300);

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Nothing to start from.
    #[error(
        "the network {0} has no [trust_anchor]: nothing on it can be proven (give the digest of \
         an end-of-epoch checkpoint, or a committee file)"
    )]
    NoAnchor(String),
    /// The pinned committee file does not work.
    #[error("the pinned committee file {path} does not work: {reason}")]
    Anchor {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No full node helped.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// What came does not prove what it should.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The state directory does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProveError {
    /// As a failure of one node among several.
    fn of_node(self, node: &Node) -> RpcError {
        match self {
            Self::Rpc(error) => error,
            Self::Proof(error) => RpcError::new(Fault::Untrusted, node.url(), error),
            other => RpcError::new(Fault::Unavailable, node.url(), other),
        }
    }
}

/// Proves objects with the help of full nodes, none of which is believed.
#[derive(Debug)]
pub struct Prover {
    nodes: Nodes,
    anchor: TrustAnchor,
    /// Where committees are kept; `None`: in memory.
    state: Option<PathBuf>,
    trust: Mutex<Option<TrustStore>>,
}

impl Prover {
    /// A prover for a network with a trust anchor. `state` is the directory where committees
    /// are kept between runs. Nothing is read or sent yet.
    ///
    /// # Errors
    /// No anchor.
    pub fn new(network: &Network, state: Option<&Path>) -> Result<Self, ProveError> {
        let anchor = network.trust_anchor.clone();
        Ok(Self {
            nodes: Nodes::new(network),
            anchor: anchor.ok_or_else(|| ProveError::NoAnchor(network.name.clone()))?,
            state: state.map(|state| state.join("committees")),
            trust: Mutex::new(None),
        })
    }

    /// The full nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The newest epoch whose committee is known, `None` before the first contact.
    pub async fn last_epoch(&self) -> Option<u64> {
        self.trust.lock().await.as_ref().map(|store| store.trust().last_epoch())
    }

    /// The newest version of an object that any node can prove. Nodes that are down, behind
    /// or lying cost nothing but their error, which is returned if no other helps.
    ///
    /// `known` is a version that need not be proven again: `Ok(None)` if no node has a newer.
    ///
    /// # Errors
    /// No node proved anything.
    pub async fn newest(
        &self,
        expected: &Expected,
        known: Option<u64>,
    ) -> Result<Option<(ObjectProof, Verified)>, ProveError> {
        let answers = self
            .nodes
            .every(|node| async move {
                let proven = self.prove_with(&node, expected, known).await;
                proven.map_err(|error| error.of_node(&node))
            })
            .await;
        let mut best: Option<(ObjectProof, Verified)> = None;
        let mut faults = Vec::new();
        let mut current = false;
        for answer in answers {
            match answer {
                Ok(Some(found)) => {
                    let newer =
                        |b: &(ObjectProof, _)| b.0.object_version() < found.0.object_version();
                    if best.as_ref().is_none_or(newer) {
                        best = Some(found);
                    }
                }
                Ok(None) => current = true,
                Err(error) => {
                    tracing::debug!(%error, "no proof");
                    faults.push(error);
                }
            }
        }
        if best.is_none() && !current {
            return Err(RpcError::none_of("prove the object", faults).into());
        }
        Ok(best)
    }

    /// An object of any type and owner, as `node` has it now, and proven.
    ///
    /// # Errors
    /// The node does not have it, or cannot prove it.
    pub async fn object(&self, node: &Node, id: ObjectId) -> Result<Verified, RpcError> {
        let expected = Expected { id, type_: None, owner: ExpectedOwner::Anybody };
        match self.prove_with(node, &expected, None).await {
            Ok(Some((_, verified))) => Ok(verified),
            // Nothing is known, so it cannot be known already.
            Ok(None) => Err(RpcError::new(Fault::NotFound, node.url(), "no such object")),
            Err(error) => Err(error.of_node(node)),
        }
    }

    /// Checks a proof that somebody handed over. Needs no network if there is any trust
    /// already, if the anchor is a committee file, or if the proof brings the pinned
    /// checkpoint along.
    ///
    /// # Errors
    /// It does not prove what is expected; or there is nothing to start from.
    pub async fn verify(
        &self,
        proof: &ObjectProof,
        expected: &Expected,
    ) -> Result<Verified, ProveError> {
        let mut guard = self.trust.lock().await;
        let store = self.start(&mut guard, Some(proof)).await?;
        Ok(store.verify(proof, expected)??)
    }

    /// The proof for somebody whose newest committee is that of `epoch`, with the links from
    /// there; with `None`, for somebody who has nothing but the same pinned checkpoint
    /// digest. Without links if they need none, or none are kept.
    pub async fn for_reader(&self, proof: &ObjectProof, epoch: Option<u64>) -> ObjectProof {
        let guard = self.trust.lock().await;
        let links = guard.as_ref().map(|store| store.links_for(epoch));
        proof.clone().with_ratchet(links.unwrap_or_default())
    }

    async fn prove_with(
        &self,
        node: &Node,
        expected: &Expected,
        known: Option<u64>,
    ) -> Result<Option<(ObjectProof, Verified)>, ProveError> {
        if let Some(known) = known
            && node.version(expected.id).await? <= known
        {
            return Ok(None);
        }
        let bytes = node.object(expected.id, None).await?;
        let object: Object = bcs::from_bytes(&bytes)
            .map_err(|error| ProofError::Malformed { what: "object", reason: error.to_string() })?;
        let (checkpoint, transaction) =
            find_checkpoint(node, &object.previous_transaction()).await?;
        let by_tree = self.by_tree(node, expected, checkpoint, &bytes).await;
        let proven = match by_tree {
            Ok(Some(proven)) => proven,
            // No tree, or a path that does not fit: the longer way tells a lie from a
            // chain that commits to no tree.
            Ok(None) | Err(ProveError::Proof(ProofError::NotInTree { .. })) => {
                self.by_effects(node, expected, checkpoint, bytes, transaction.effects).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Some(proven))
    }

    async fn by_tree(
        &self,
        node: &Node,
        expected: &Expected,
        checkpoint: u64,
        bytes: &[u8],
    ) -> Result<Option<(ObjectProof, Verified)>, ProveError> {
        let Some((summary, path, proven)) = node.object_proof(expected.id, checkpoint).await?
        else {
            return Ok(None);
        };
        if proven != bytes {
            // The checkpoint wrote it more than once, and the tree has the last version.
            return Ok(None);
        }
        let signed = EpochEnd::from_bytes(&summary)?.into_signed();
        let evidence =
            Evidence::Tree { leaf: path.leaf_index, root: path.tree_root, path: path.merkle_proof };
        let proof = ObjectProof::new(proven, signed, evidence)?;
        self.verify_with(node, proof, expected).await.map(Some)
    }

    async fn by_effects(
        &self,
        node: &Node,
        expected: &Expected,
        checkpoint: u64,
        bytes: Vec<u8>,
        effects: Vec<u8>,
    ) -> Result<(ObjectProof, Verified), ProveError> {
        let parts = node.checkpoint(CheckpointAt::Sequence(checkpoint), true).await?;
        let evidence = Evidence::effects(parts.contents.unwrap_or_default(), effects)?;
        let proof = ObjectProof::new(bytes, parts.signed, evidence)?;
        self.verify_with(node, proof, expected).await
    }

    /// Verifies what a node sent, walking to its epoch first if need be.
    async fn verify_with(
        &self,
        node: &Node,
        proof: ObjectProof,
        expected: &Expected,
    ) -> Result<(ObjectProof, Verified), ProveError> {
        let mut guard = self.trust.lock().await;
        let store = self.start(&mut guard, None).await?;
        walk(store, node, proof.epoch()).await?;
        let verified = store.verify(&proof, expected)??;
        Ok((proof, verified))
    }

    /// The trust, from memory, disk, file or, at the very first, a full node.
    async fn start<'a>(
        &self,
        slot: &'a mut Option<TrustStore>,
        brought: Option<&ObjectProof>,
    ) -> Result<&'a mut TrustStore, ProveError> {
        if slot.is_none() {
            *slot = Some(self.begin(brought).await?);
        }
        slot.as_mut().ok_or_else(|| ProveError::NoAnchor(String::new()))
    }

    async fn begin(&self, brought: Option<&ObjectProof>) -> Result<TrustStore, ProveError> {
        match &self.anchor {
            TrustAnchor::Committee(path) => {
                let committee = committee_file(path).map_err(|reason| ProveError::Anchor {
                    path: path.display().to_string(),
                    reason: reason.to_string(),
                })?;
                let trust = Trust::from_committee(committee)?;
                let name = anchor_name(&trust);
                match self.stored(&name)? {
                    Some(store) => Ok(store),
                    None => self.store(&name, trust),
                }
            }
            TrustAnchor::Checkpoint(digest) => {
                let name = base58_encode(digest);
                if let Some(store) = self.stored(&name)? {
                    return Ok(store);
                }
                let (trust, end) = match brought.and_then(|proof| proof.anchor(digest)) {
                    Some(end) => {
                        (Trust::from_checkpoint(digest, end.summary())?, Some(end.clone()))
                    }
                    None => self.ask_for_anchor(digest).await?,
                };
                let mut store = self.store(&name, trust)?;
                if let Some(end) = end {
                    store.keep_anchor(end)?;
                }
                Ok(store)
            }
        }
    }

    fn stored(&self, name: &str) -> Result<Option<TrustStore>, StoreError> {
        self.state.as_ref().map_or(Ok(None), |state| TrustStore::open(state, name))
    }

    fn store(&self, name: &str, trust: Trust) -> Result<TrustStore, ProveError> {
        match &self.state {
            Some(state) => Ok(TrustStore::create(state, name, trust)?),
            None => Ok(TrustStore::in_memory(trust)),
        }
    }

    async fn ask_for_anchor(
        &self,
        digest: &[u8; 32],
    ) -> Result<(Trust, Option<EpochEnd>), ProveError> {
        let ask = |node: Node| async move {
            anchor_from(&node, digest).await.map_err(|error| error.of_node(&node))
        };
        Ok(self.nodes.first("hand over the pinned checkpoint", ask).await?)
    }
}

/// A committee file's anchor is called by what is in it.
fn anchor_name(trust: &Trust) -> String {
    let bytes = trust.first_committee().and_then(|c| bcs::to_bytes(c).ok()).unwrap_or_default();
    base58_encode(sui_sdk_types::hash::Hasher::digest(bytes).inner())
}

async fn anchor_from(
    node: &Node,
    digest: &[u8; 32],
) -> Result<(Trust, Option<EpochEnd>), ProveError> {
    let at = CheckpointAt::Digest(Digest::new(*digest));
    let parts = node.checkpoint(at, true).await?;
    let summary = &parts.signed.checkpoint;
    if summary.sequence_number != 0 {
        let trust = Trust::from_checkpoint(digest, summary)?;
        let end = EpochEnd::new(parts.signed.checkpoint, parts.signed.signature)?;
        return Ok((trust, Some(end)));
    }
    let contents = parts.contents.unwrap_or_default();
    let transaction = first_transaction(&contents)?;
    let effects = node.transaction(&transaction).await?.effects;
    let system = node.object(SYSTEM_STATE, Some(1)).await?;
    let inner = node.object(system_inner_id(&system)?, Some(1)).await?;
    let parts =
        GenesisParts { contents: &contents, effects: &effects, system: &system, inner: &inner };
    Ok((Trust::from_committee(genesis_committee(digest, summary, parts)?)?, None))
}

fn first_transaction(contents: &[u8]) -> Result<Digest, ProofError> {
    let malformed = |reason: String| ProofError::Malformed { what: "list of transactions", reason };
    let contents: sui_sdk_types::CheckpointContents =
        bcs::from_bytes(contents).map_err(|error| malformed(error.to_string()))?;
    let first = contents.transactions().first();
    first.map(|info| *info.transaction()).ok_or_else(|| malformed("it is empty".to_owned()))
}

/// Takes committee after committee from `node` until `epoch` is reached.
async fn walk(store: &mut TrustStore, node: &Node, epoch: u64) -> Result<(), ProveError> {
    let start = store.trust().last_epoch();
    while store.trust().last_epoch() < epoch {
        let last = store.trust().last_epoch();
        if last - start >= WALK_MAX {
            return Err(ProofError::UnknownEpoch {
                epoch,
                first: store.trust().first_epoch(),
                last,
            }
            .into());
        }
        let end = node.epoch(Some(last)).await?.last_checkpoint.ok_or_else(|| {
            RpcError::new(
                Fault::Untrusted,
                node.url(),
                format_args!("says that epoch {last} is not over, but shows epoch {epoch}"),
            )
        })?;
        let parts = node.checkpoint(CheckpointAt::Sequence(end), false).await?;
        let link = EpochEnd::new(parts.signed.checkpoint, parts.signed.signature)?;
        if link.epoch() != last {
            return Err(ProofError::NotEndOfEpoch { sequence: link.sequence() }.into());
        }
        store.advance(link)??;
    }
    Ok(())
}

/// The checkpoint a transaction is in; waits a little if it was executed just now.
pub(crate) async fn find_checkpoint(
    node: &Node,
    transaction: &Digest,
) -> Result<(u64, TxInfo), RpcError> {
    for _ in 0..CHECKPOINT_TRIES {
        let info = node.transaction(transaction).await?;
        if let Some(checkpoint) = info.checkpoint {
            return Ok((checkpoint, info));
        }
        tokio::time::sleep(CHECKPOINT_WAIT).await;
    }
    Err(RpcError::new(
        Fault::Unavailable,
        node.url(),
        format_args!("transaction {transaction} is in no checkpoint yet"),
    ))
}

/// What is expected of an archive's, or any other, shared object.
#[must_use]
pub fn shared(
    id: ObjectId,
    package: Option<ObjectId>,
    module: &'static str,
    name: &'static str,
) -> Expected {
    Expected { id, type_: Some((package, module, name)), owner: ExpectedOwner::SharedOrFrozen }
}
