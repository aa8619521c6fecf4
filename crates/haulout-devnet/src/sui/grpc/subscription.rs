//! `sui.rpc.v2.SubscriptionService`: checkpoints as they come.

use futures_util::stream;
use sui_rpc::{
    field::{FieldMask, FieldMaskTree, FieldMaskUtil},
    proto::sui::rpc::v2::{
        SubscribeCheckpointsRequest, SubscribeCheckpointsResponse,
        subscription_service_server::SubscriptionService,
    },
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{Service, render};

#[tonic::async_trait]
impl SubscriptionService for Service {
    async fn subscribe_checkpoints(
        &self,
        request: Request<SubscribeCheckpointsRequest>,
    ) -> Result<Response<BoxStream<SubscribeCheckpointsResponse>>, Status> {
        let request = request.into_inner();
        // As on a full node, paths that do not exist are passed over here.
        let default = || <FieldMask as FieldMaskUtil>::from_str("sequence_number,digest");
        let mask = FieldMaskTree::from(request.read_mask.unwrap_or_else(default));
        let height = self.shared.height();
        let next = *height.borrow() + 1;
        let state = (self.clone(), height, next, mask);
        let stream = stream::unfold(state, |(service, mut height, next, mask)| async move {
            height.wait_for(|height| *height >= next).await.ok()?;
            let message = service.answer(|view| {
                let checkpoint = view.checkpoint(next)?;
                let mut message = SubscribeCheckpointsResponse::default();
                message.cursor = Some(next);
                message.checkpoint = Some(render::checkpoint(view, checkpoint, &mask));
                Ok(message)
            });
            Some((message.map(Response::into_inner), (service, height, next + 1, mask)))
        });
        let stream: BoxStream<_> = Box::pin(stream);
        self.answer(|_| Ok(())).map(|response| response.map(|()| stream))
    }
}
