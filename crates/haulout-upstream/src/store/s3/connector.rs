//! Lets `object_store` send its requests through our client.

use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

use crate::error::Trouble;
use crate::http::Client;

/// Makes [`HttpClient`]s that all share one [`Client`].
#[derive(Debug)]
pub(super) struct Connect(Client);

impl Connect {
    pub(super) const fn new(client: Client) -> Self {
        Self(client)
    }
}

impl HttpConnector for Connect {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Client);

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let response = self.0.send(request, false).await.map_err(|trouble| {
            let kind = match trouble {
                Trouble::Unreachable(_) => HttpErrorKind::Connect,
                _ => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, trouble)
        })?;
        Ok(response.map(|body| {
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
            )
        }))
    }
}
