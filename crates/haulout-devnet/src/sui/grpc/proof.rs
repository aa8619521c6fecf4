//! `sui.rpc.v2alpha.ProofService`: what a checkpoint did to an object (OCS proofs).

use prost::bytes::Bytes;
use sui_rpc::proto::sui::rpc::v2alpha::{
    GetCheckpointObjectProofRequest, GetCheckpointObjectProofResponse, OcsInclusionProof,
    OcsNonInclusionProof, get_checkpoint_object_proof_response::Proof,
    proof_service_server::ProofService,
};
use sui_sdk_types::{
    Address, Digest, ObjectReference, SignedCheckpointSummary, merkle::MerkleProof, proof as sdk,
};
use tonic::{Request, Response, Status};

use super::{
    Service,
    errors::{address, missing},
    view::View,
};
use crate::sui::{
    model::{Checkpoint, checkpoint_tree},
    names::encode,
};

#[tonic::async_trait]
impl ProofService for Service {
    async fn get_checkpoint_object_proof(
        &self,
        request: Request<GetCheckpointObjectProofRequest>,
    ) -> Result<Response<GetCheckpointObjectProofResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            if view.faults().no_proofs {
                return Err(Status::unimplemented(""));
            }
            let id = address(request.object_id.as_deref(), "object_id", "object_id")?;
            let number = request.checkpoint.ok_or_else(|| missing("checkpoint"))?;
            let checkpoint = view.checkpoint(number)?;
            if checkpoint.summary.checkpoint_commitments.is_empty() {
                let message = format!("Checkpoint {number} has no artifacts digest");
                return Err(Status::failed_precondition(message));
            }
            let signed = SignedCheckpointSummary {
                checkpoint: checkpoint.summary.clone(),
                signature: view.signature(checkpoint),
            };
            let mut response = GetCheckpointObjectProofResponse::default();
            response.checkpoint_summary = Some(Bytes::from(encode(&signed)));
            response.proof = Some(prove(view, checkpoint, id)?);
            Ok(response)
        })
    }
}

fn prove(view: &View<'_>, checkpoint: &Checkpoint, id: Address) -> Result<Proof, Status> {
    let internal = |_| Status::internal("no proof can be built");
    let written = &checkpoint.written;
    let tree = checkpoint_tree(written);
    let tree_root = Digest::new(tree.root().bytes());
    let Ok(index) = written.binary_search_by_key(&id, |leaf| *leaf.object_id()) else {
        let target = ObjectReference::new(id, 0, Digest::ZERO);
        let non_inclusion_proof =
            tree.compute_non_inclusion_proof(written, &target).map_err(internal)?;
        let proof = sdk::OcsNonInclusionProof { non_inclusion_proof, tree_root };
        return Ok(Proof::NonInclusion(OcsNonInclusionProof::from(proof)));
    };
    let mut merkle_proof = tree.get_proof(index).map_err(internal)?;
    if view.faults().truncated_proof {
        let mut path = merkle_proof.path().to_vec();
        path.pop();
        merkle_proof = MerkleProof::new(path);
    }
    let proof = sdk::OcsInclusionProof { merkle_proof, leaf_index: index as u64, tree_root };
    let mut message = OcsInclusionProof::from(proof);
    let leaf = &written[index];
    message.object_ref = Some(leaf.clone().into());
    let object = view.true_object(id, Some(leaf.version()))?;
    message.object_data = Some(Bytes::from(encode(&view.distort(object))));
    Ok(Proof::Inclusion(message))
}
