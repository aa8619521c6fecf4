//! Requests that come through the door.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use haulout_nix::narinfo;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::body::{NarStream, ResponseBody};
use crate::door::{Door, May, Refused, Uploads};
use crate::handler::{Answer, Shared, asked_range, nar_answer, not_found, partial, plain, whole};
use crate::route::Route;
use crate::{Cut, Substituter};

/// What a guest's request comes to; `None`: it is one for the substituter.
pub(crate) async fn receive<S: Substituter>(
    shared: &Shared<S>,
    door: &Door,
    request: Request<Incoming>,
) -> Result<Answer, Request<Incoming>> {
    let may = door.may(request.headers());
    if may == May::Nothing {
        return Ok(unauthorized());
    }
    if *request.method() == Method::PUT {
        let Some(uploads) = &door.uploads else { return Err(request) };
        if may < May::Write {
            return Ok(unauthorized());
        }
        return Ok(put(&**uploads, request).await);
    }
    // Control and logs are for this machine; a proxy in front must not open them.
    let route = Route::of(request.uri().path());
    if matches!(route, Route::Control(_) | Route::Log(_) | Route::Index | Route::Blob(_)) {
        return Ok(not_found());
    }
    let Some(uploads) = &door.uploads else { return Err(request) };
    let head = *request.method() == Method::HEAD;
    match route {
        Route::NarInfo(hash) => match uploads.narinfo(hash).await {
            Some(text) => Ok(whole(narinfo::CONTENT_TYPE, text, head)),
            None => Err(request),
        },
        // Its shape is not that of the substituter's own NARs.
        Route::Nothing => match file(shared, &**uploads, &request, head).await {
            Some(answer) => Ok(answer),
            None => Ok(not_found()),
        },
        _ => Err(request),
    }
}

async fn file<S: Substituter>(
    shared: &Shared<S>,
    uploads: &dyn Uploads,
    request: &Request<Incoming>,
    head: bool,
) -> Option<Answer> {
    let name = request.uri().path().strip_prefix('/')?;
    let size = uploads.size_of(name).await?;
    if head {
        return Some(nar_answer(StatusCode::OK, size, ResponseBody::empty()));
    }
    let fitting = asked_range(request.headers()).and_then(|asked| asked.fit(size));
    let (from, len) = fitting.as_ref().map_or((0, size), |part| (part.from, part.len));
    let source = uploads.open(name, from).await?;
    let stream =
        NarStream::new(source, len, from + len < size, std::sync::Arc::clone(&shared.counters));
    let body = ResponseBody::nar(stream);
    Some(match fitting {
        None => nar_answer(StatusCode::OK, size, body),
        Some(_) => partial(from, len, size, body),
    })
}

async fn put(uploads: &dyn Uploads, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let taken = match Route::of(&path) {
        Route::NarInfo(hash) => match small(request.into_body()).await {
            Ok(text) => uploads.put_narinfo(hash, text).await,
            Err(refused) => Err(refused),
        },
        // Nix writes it when it finds none; we have one.
        Route::CacheInfo => Ok(()),
        _ => {
            let body = request.into_body().into_data_stream();
            let body = body.map(|piece| piece.map_err(|error| Cut::new(error.to_string()))).boxed();
            uploads.put_file(path.trim_start_matches('/'), body).await
        }
    };
    match taken {
        Ok(()) => plain(StatusCode::CREATED, "taken\n"),
        Err(refused) => {
            tracing::info!(path, status = refused.status, why = refused.why, "upload refused");
            let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
            let mut answer = whole("text/plain", refused.why + "\n", false);
            *answer.status_mut() = status;
            // The rest of the body is not read.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    }
}

/// A narinfo as a whole.
async fn small(mut body: Incoming) -> Result<Bytes, Refused> {
    let refused = |status, why: &str| Refused { status, why: why.to_owned() };
    if body.size_hint().lower() > narinfo::TEXT_BYTES_MAX as u64 {
        return Err(refused(413, "the narinfo is too long"));
    }
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| refused(400, "the upload broke off"))?;
        let data = frame.into_data().unwrap_or_default();
        if text.len() + data.len() > narinfo::TEXT_BYTES_MAX {
            return Err(refused(413, "the narinfo is too long"));
        }
        text.extend_from_slice(&data);
    }
    Ok(text.freeze())
}

fn unauthorized() -> Answer {
    let mut answer = plain(
        StatusCode::UNAUTHORIZED,
        "a name and a password are needed; for Nix put them into netrc-file\n",
    );
    let ask = HeaderValue::from_static("Basic realm=\"haulout\", charset=\"UTF-8\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
