//! A cache behind HTTP(S), plain or with the signatures of S3.

use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use haulout_nix::Compression;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, Uri};

use super::s3::S3;
use super::{Got, Object, Validator, Want};
use crate::decompress::ByteStream;
use crate::error::Trouble;
use crate::http::{Client, lifetime, retry_after};

/// How long the header of an answer may take. Who asks for a narinfo has a budget of its own.
const HEADER_MAX: Duration = Duration::from_secs(10);

/// How a cache is told who asks.
#[derive(Debug)]
pub(crate) enum Auth {
    /// Not at all.
    None,
    /// With this field.
    Field(HeaderValue),
    /// With signatures in the URLs.
    S3(S3),
}

#[derive(Debug)]
pub(crate) struct HttpStore {
    pub(crate) client: Client,
    /// URL without a final slash.
    pub(crate) base: String,
    pub(crate) auth: Auth,
}

impl HttpStore {
    pub(crate) async fn get(&self, want: &Want<'_>) -> Result<Got, Trouble> {
        let url = self.url(want.key).await?;
        let field = match &self.auth {
            Auth::Field(value) => Some(value),
            Auth::None | Auth::S3(_) => None,
        };
        let asked = self.client.get(url, fields(want), field);
        let response = tokio::time::timeout(HEADER_MAX, asked)
            .await
            .map_err(|_| Trouble::Slow("did not answer within 10 s"))??;
        judge(response, want)
    }

    async fn url(&self, key: &str) -> Result<Uri, Trouble> {
        let url = match &self.auth {
            Auth::S3(s3) => s3.url(key).await?,
            Auth::None | Auth::Field(_) => format!("{}/{key}", self.base),
        };
        url.parse().map_err(|_| Trouble::Malformed("the name of a file makes no URL".into()))
    }
}

fn fields(want: &Want<'_>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut put = |name: HeaderName, value: String| {
        // Everything here was in a header before or is made of digits.
        if let Ok(value) = HeaderValue::from_str(&value) {
            fields.insert(name, value);
        }
    };
    put(header::ACCEPT_ENCODING, "identity".into());
    match (want.from, want.end) {
        (0, None) => {}
        (from, None) => put(header::RANGE, format!("bytes={from}-")),
        (from, Some(end)) => put(header::RANGE, format!("bytes={from}-{}", end.saturating_sub(1))),
    }
    match want.part_of {
        Some(Validator::Etag(tag)) => put(header::IF_RANGE, tag.clone()),
        Some(Validator::Modified(date)) => put(header::IF_RANGE, date.clone()),
        Some(Validator::Weak(_)) | None => {}
    }
    match want.unless {
        Some(Validator::Etag(tag) | Validator::Weak(tag)) => {
            put(header::IF_NONE_MATCH, tag.clone());
        }
        Some(Validator::Modified(date)) => put(header::IF_MODIFIED_SINCE, date.clone()),
        None => {}
    }
    fields
}

/// What an answer means, by the rules of Nix: 403, 404 and 410 are "not here".
fn judge(response: Response<Incoming>, want: &Want<'_>) -> Result<Got, Trouble> {
    let (status, fields) = (response.status().as_u16(), response.headers());
    match status {
        200 => object(response, want, 0, None),
        206 => {
            let (from, total) = content_range(fields)
                .filter(|(from, _)| *from == want.from)
                .ok_or_else(|| Trouble::Malformed("a part other than the one asked for".into()))?;
            object(response, want, from, total)
        }
        304 if want.unless.is_some() => Ok(Got::NotModified(lifetime(fields))),
        403 | 404 | 410 => Ok(Got::Absent(lifetime(fields))),
        401 | 407 => Err(Trouble::Denied(status)),
        511 => Err(Trouble::Portal("status 511".into())),
        429 | 503 => {
            let retry_after = retry_after(fields, SystemTime::now());
            Err(Trouble::RateLimited { status, retry_after })
        }
        412 | 416 => Err(Trouble::Changed),
        _ => Err(Trouble::Status(status)),
    }
}

fn object(
    response: Response<Incoming>,
    want: &Want<'_>,
    from: u64,
    total: Option<u64>,
) -> Result<Got, Trouble> {
    let fields = response.headers();
    let validator = validator(fields);
    // The whole file where a part was asked for: another version, or a cache without ranges.
    if from < want.from && want.part_of.is_some() && want.part_of != validator.as_ref() {
        return Err(Trouble::Changed);
    }
    let length = text(fields, header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let is_page = text(fields, header::CONTENT_TYPE)
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let encoding = encoding(fields)?;
    Ok(Got::Object(Object {
        from,
        // For 206 the length is that of the part.
        total: if response.status() == 206 { total } else { length },
        lifetime: lifetime(fields),
        validator,
        is_page,
        encoding,
        body: bytes_of(response.into_body()),
    }))
}

fn text(fields: &HeaderMap, name: HeaderName) -> Option<&str> {
    fields.get(name)?.to_str().ok()
}

fn validator(fields: &HeaderMap) -> Option<Validator> {
    match text(fields, header::ETAG) {
        Some(tag) if tag.starts_with("W/") => Some(Validator::Weak(tag.to_owned())),
        Some(tag) => Some(Validator::Etag(tag.to_owned())),
        None => {
            text(fields, header::LAST_MODIFIED).map(|date| Validator::Modified(date.to_owned()))
        }
    }
}

fn encoding(fields: &HeaderMap) -> Result<Option<Compression>, Trouble> {
    let Some(name) = text(fields, header::CONTENT_ENCODING) else { return Ok(None) };
    Ok(Some(match name.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => return Ok(None),
        "gzip" | "x-gzip" => Compression::Gzip,
        "br" => Compression::Brotli,
        "zstd" => Compression::Zstd,
        "xz" => Compression::Xz,
        "bzip2" => Compression::Bzip2,
        _ => return Err(Trouble::Malformed("a content encoding that is not known here".into())),
    }))
}

/// First byte and size of the whole file, from `bytes 5-9/100` (`*` for a size not known).
fn content_range(fields: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let rest = text(fields, header::CONTENT_RANGE)?.trim().strip_prefix("bytes ")?;
    let (range, total) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse::<u64>().ok().filter(|total| last < *total)?),
    };
    (first <= last).then_some((first, total))
}

fn bytes_of(body: Incoming) -> ByteStream {
    stream::unfold(Some(body), |body| async {
        let mut body = body?;
        loop {
            match body.frame().await? {
                // Trailers carry nothing for us.
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => return Some((Ok(bytes), Some(body))),
                    Err(_) => continue,
                },
                Err(error) => return Some((Err(Trouble::Broken(error.to_string())), None)),
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let read = |value: &'static str| {
            let field = (header::CONTENT_RANGE, HeaderValue::from_static(value));
            content_range(&HeaderMap::from_iter([field]))
        };
        assert_eq!(read("bytes 5-9/100"), Some((5, Some(100))));
        assert_eq!(read("bytes 5-9/*"), Some((5, None)));
        for bad in [
            "bytes 9-5/100",
            "bytes 5-100/100",
            "bytes */100",
            "5-9/100",
            "bytes 5-9",
            "bytes -5/9",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
