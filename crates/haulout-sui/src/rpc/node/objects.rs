//! Calls about objects: their bytes, their proofs, and whose they are.

use std::sync::atomic::Ordering;

use sui_rpc::{
    field::{FieldMask, FieldMaskUtil},
    proto::sui::rpc::{
        v2::{BatchGetObjectsRequest, GetObjectRequest, ListOwnedObjectsRequest},
        v2alpha::{GetCheckpointObjectProofRequest, get_checkpoint_object_proof_response::Proof},
    },
};
use sui_sdk_types::{Address, Object, proof::OcsInclusionProof};

use super::{Node, OwnedObject};
use crate::{
    ObjectId,
    object_id::address,
    rpc::{Fault, RpcError, error::words},
};

/// Objects asked for at once.
const BATCH_MAX: usize = 50;
/// Pages of owned objects that are looked through, 200 objects each: the blobs of who publishes 250,000 paths a
/// month for two years.
const PAGES_MAX: usize = 1_000;
const PAGE_SIZE: u32 = 200;

impl Node {
    /// An object's BCS bytes, newest version or a given one.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if there is none; or no usable answer.
    pub async fn object(&self, id: ObjectId, version: Option<u64>) -> Result<Vec<u8>, RpcError> {
        let mut request = GetObjectRequest::new(&address(id))
            .with_read_mask(FieldMask::from_paths(["object_id", "bcs"]));
        request.version = version;
        let answer = self
            .ask("read object", request, async |mut client, request| {
                client.ledger_client().get_object(request).await
            })
            .await?;
        Ok(answer.object().bcs().value().to_vec())
    }

    /// An object's newest version, by number.
    ///
    /// # Errors
    /// As [`Node::object`].
    pub async fn version(&self, id: ObjectId) -> Result<u64, RpcError> {
        let request = GetObjectRequest::new(&address(id))
            .with_read_mask(FieldMask::from_paths(["object_id", "version"]));
        let answer = self
            .ask("read object", request, async |mut client, request| {
                client.ledger_client().get_object(request).await
            })
            .await?;
        let found = answer.object().object_id();
        if found.parse() != Ok(address(id)) {
            let found = words(found);
            return Err(self.malformed("object", format_args!("{found} instead of {id}")));
        }
        Ok(answer.object().version())
    }

    /// An object, read but not proven.
    ///
    /// # Errors
    /// As [`Node::object`], or another object than asked for.
    pub async fn read(&self, id: ObjectId) -> Result<Object, RpcError> {
        let bytes = self.object(id, None).await?;
        self.parse(id, &bytes)
    }

    fn parse(&self, id: ObjectId, bytes: &[u8]) -> Result<Object, RpcError> {
        let object: Object =
            bcs::from_bytes(bytes).map_err(|error| self.malformed("object", error))?;
        if object.object_id() == address(id) {
            return Ok(object);
        }
        Err(self.malformed("object", format_args!("{} instead of {id}", object.object_id())))
    }

    /// Several objects, in the order asked for; `None` where there is none.
    ///
    /// # Errors
    /// No usable answer to one of the requests.
    pub async fn read_all(&self, ids: &[ObjectId]) -> Result<Vec<Option<Object>>, RpcError> {
        let mut objects = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH_MAX) {
            let requests =
                batch.iter().map(|&id| GetObjectRequest::new(&address(id))).collect::<Vec<_>>();
            let request = BatchGetObjectsRequest::default()
                .with_requests(requests)
                .with_read_mask(FieldMask::from_paths(["object_id", "bcs"]));
            let answer = self
                .ask("read objects", request, async |mut client, request| {
                    client.ledger_client().batch_get_objects(request).await
                })
                .await?;
            if answer.objects.len() != batch.len() {
                return Err(self.malformed("batch", "not as many answers as questions"));
            }
            for (&id, result) in batch.iter().zip(&answer.objects) {
                objects.push(match result.object_opt() {
                    Some(object) => Some(self.parse(id, object.bcs().value())?),
                    None => None,
                });
            }
        }
        Ok(objects)
    }

    /// The path of an object through the tree of what a checkpoint wrote: signed summary,
    /// path, object bytes. `None` if the node serves no such proofs, and from then on
    /// without asking.
    ///
    /// # Errors
    /// No usable answer.
    pub async fn object_proof(
        &self,
        id: ObjectId,
        checkpoint: u64,
    ) -> Result<Option<(Vec<u8>, OcsInclusionProof, Vec<u8>)>, RpcError> {
        if !self.serves_proofs.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let request = GetCheckpointObjectProofRequest::default()
            .with_object_id(address(id).to_string())
            .with_checkpoint(checkpoint);
        let answer = match self
            .ask("prove object", request, async |mut client, request| {
                client.proof_client().get_checkpoint_object_proof(request).await
            })
            .await
        {
            Ok(answer) => answer,
            Err(error) if matches!(error.fault, Fault::Unsupported | Fault::Refused) => {
                tracing::debug!(node = %self.url, %error, "serves no object proofs");
                self.serves_proofs.store(false, Ordering::Relaxed);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let summary = answer.checkpoint_summary().to_vec();
        match &answer.proof {
            Some(Proof::Inclusion(inclusion)) => {
                let bytes = inclusion.object_data().to_vec();
                let proof = OcsInclusionProof::try_from(inclusion)
                    .map_err(|error| self.malformed("object proof", error))?;
                Ok(Some((summary, proof, bytes)))
            }
            _ => Err(self.malformed("object proof", "it says the object was not written")),
        }
    }

    /// The objects of an account that have this type.
    ///
    /// # Errors
    /// No usable answer, or more pages than anybody's wallet has.
    pub async fn owned(
        &self,
        owner: &Address,
        object_type: &str,
    ) -> Result<Vec<OwnedObject>, RpcError> {
        let mut objects = Vec::new();
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let mut request = ListOwnedObjectsRequest::default()
                .with_owner(owner.to_string())
                .with_object_type(object_type.to_owned())
                .with_page_size(PAGE_SIZE)
                .with_read_mask(FieldMask::from_paths(["object_id", "bcs"]));
            request.page_token = token;
            let page = self
                .ask("list owned objects", request, async |mut client, request| {
                    client.state_client().list_owned_objects(request).await
                })
                .await?;
            if page.objects.len() > PAGE_SIZE as usize {
                return Err(self.malformed("list", "more objects on a page than were asked for"));
            }
            for object in &page.objects {
                let object = bcs::from_bytes(object.bcs().value())
                    .map_err(|error| self.malformed("object", error))?;
                objects.push(OwnedObject(object));
            }
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(objects);
            }
        }
        Err(RpcError::new(
            Fault::Refused,
            &self.url,
            format_args!(
                "the account has more than {} such objects",
                PAGES_MAX * PAGE_SIZE as usize
            ),
        ))
    }
}
