//! What a request asks for: paths and queries, as checked values.

use redstuff::{AxisKind, BlobId, PairIndex, SymbolId, messages::BlobPersistence};

/// Most parameters that are read of a query; the rest is not looked at.
const QUERY_PARAMETERS_MAX: usize = 4096;

/// One of the node's routes with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /v1/health`.
    Health {
        /// Whether to list the shards.
        detailed: bool,
    },
    /// `GET …/metadata`.
    Metadata(BlobId),
    /// `PUT …/metadata`.
    PutMetadata(BlobId),
    /// `GET …/metadata/status`.
    MetadataStatus(BlobId),
    /// `GET …/slivers/{pair}/{type}`.
    Sliver(SliverName),
    /// `PUT …/slivers/{pair}/{type}`.
    PutSliver(SliverName),
    /// `GET …/slivers/{pair}/{type}/status`.
    SliverStatus(SliverName),
    /// `GET …/slivers/{pair}/{type}/{target pair}`: one symbol, the old way.
    LegacySymbol {
        /// The source pair, and the axis of the *target*.
        name: SliverName,
        /// The target pair.
        target: PairIndex,
    },
    /// `GET …/recoverySymbols/{primary}-{secondary}`.
    Symbol(BlobId, SymbolId),
    /// `GET …/recoverySymbols`.
    Symbols {
        /// The blob.
        blob: BlobId,
        /// Which symbols.
        filter: SymbolFilter,
        /// The axis of the slivers the symbols are to be taken from.
        proof_axis: Option<AxisKind>,
    },
    /// `GET …/decodingSymbols`.
    DecodingSymbols {
        /// The blob.
        blob: BlobId,
        /// Indices of the slivers to rebuild.
        targets: Vec<u16>,
        /// Their axis.
        axis: AxisKind,
    },
    /// `GET …/confirmation/…`.
    Confirmation {
        /// The blob.
        blob: BlobId,
        /// What is to be confirmed.
        persistence: BlobPersistence,
        /// How long to wait for the registration, in milliseconds.
        wait_ms: u64,
    },
    /// `POST …/inconsistencyProof/{type}`.
    InconsistencyProof(BlobId, AxisKind),
    /// `GET …/status`.
    Status(BlobId),
    /// `POST /v1/migrate/sync_shard`.
    SyncShard,
}

/// A sliver as a path names it. The pair may be out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliverName {
    /// The blob.
    pub blob: BlobId,
    /// The pair.
    pub pair: PairIndex,
    /// Which of the pair's two.
    pub axis: AxisKind,
}

/// Which recovery symbols are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SymbolFilter {
    /// These, sorted, each once.
    Ids(Vec<SymbolId>),
    /// All that help to rebuild a sliver.
    ForSliver(AxisKind, u16),
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteError {
    /// No such path.
    NotFound,
    /// The path takes other methods: the value of `Allow`.
    Method(&'static str),
    /// A parameter in path or query cannot be read; the text is for people.
    Bad(String),
}

/// Finds the route of a request.
///
/// # Errors
/// There is none, or a parameter is malformed.
pub fn parse(method: &str, path: &str, query: &str) -> Result<Route, RouteError> {
    let mut segments = path.strip_prefix("/v1/").ok_or(RouteError::NotFound)?.split('/');
    let first = (segments.next(), segments.next());
    let rest: Vec<&str> = segments.collect();
    match (first, rest.as_slice()) {
        ((Some("health"), None), []) => {
            only(method, &["GET"])?;
            let detailed = parameters(query).find(|(key, _)| key == "detailed");
            let detailed = match detailed.as_ref().map(|(_, value)| value.as_str()) {
                None | Some("false") => false,
                Some("true") => true,
                Some(_) => return Err(bad_query("provided string was not `true` or `false`")),
            };
            Ok(Route::Health { detailed })
        }
        ((Some("migrate"), Some("sync_shard")), []) => {
            only(method, &["POST"])?;
            Ok(Route::SyncShard)
        }
        ((Some("blobs"), Some(blob)), rest) if !blob.is_empty() => {
            blob_route(method, blob, rest, query)
        }
        _ => Err(RouteError::NotFound),
    }
}

fn blob_route(method: &str, blob: &str, rest: &[&str], query: &str) -> Result<Route, RouteError> {
    // As in the real service, the path's shape decides first, then the method, then the values.
    match *rest {
        ["metadata"] => match only(method, &["GET", "PUT"])? {
            "PUT" => Ok(Route::PutMetadata(blob_id(blob)?)),
            _ => Ok(Route::Metadata(blob_id(blob)?)),
        },
        ["metadata", "status"] => {
            only(method, &["GET"])?;
            Ok(Route::MetadataStatus(blob_id(blob)?))
        }
        ["slivers", pair, axis] => match only(method, &["GET", "PUT"])? {
            "PUT" => Ok(Route::PutSliver(sliver(blob, pair, axis)?)),
            _ => Ok(Route::Sliver(sliver(blob, pair, axis)?)),
        },
        ["slivers", pair, axis, "status"] => {
            only(method, &["GET"])?;
            Ok(Route::SliverStatus(sliver(blob, pair, axis)?))
        }
        ["slivers", pair, axis, target] => {
            only(method, &["GET"])?;
            let name = sliver(blob, pair, axis)?;
            Ok(Route::LegacySymbol { name, target: PairIndex(number(target, 3)?) })
        }
        ["recoverySymbols"] => {
            only(method, &["GET"])?;
            symbols(blob_id(blob)?, query)
        }
        ["recoverySymbols", id] => {
            only(method, &["GET"])?;
            let blob = blob_id(blob)?;
            let bad = |_| bad_url("symbol_id", id, "failed to parse a symbol ID");
            Ok(Route::Symbol(blob, decoded(id)?.parse().map_err(bad)?))
        }
        ["decodingSymbols"] => {
            only(method, &["GET"])?;
            decoding_symbols(blob_id(blob)?, query)
        }
        ["confirmation", "permanent"] => {
            only(method, &["GET"])?;
            let (blob, wait_ms) = (blob_id(blob)?, wait_ms(query)?);
            Ok(Route::Confirmation { blob, persistence: BlobPersistence::Permanent, wait_ms })
        }
        ["confirmation", "deletable", object] => {
            only(method, &["GET"])?;
            let blob = blob_id(blob)?;
            let persistence = BlobPersistence::Deletable(object_id(object)?);
            Ok(Route::Confirmation { blob, persistence, wait_ms: wait_ms(query)? })
        }
        ["inconsistencyProof", axis] => {
            only(method, &["POST"])?;
            Ok(Route::InconsistencyProof(blob_id(blob)?, axis_kind(axis)?))
        }
        ["status"] => {
            only(method, &["GET"])?;
            Ok(Route::Status(blob_id(blob)?))
        }
        _ => Err(RouteError::NotFound),
    }
}

/// The method if it is one of `allowed`; HEAD counts as GET.
fn only(method: &str, allowed: &[&'static str]) -> Result<&'static str, RouteError> {
    let method = if method == "HEAD" { "GET" } else { method };
    allowed.iter().find(|known| **known == method).copied().ok_or(RouteError::Method(
        match allowed {
            ["GET", "PUT"] => "GET,HEAD,PUT",
            ["POST"] => "POST",
            _ => "GET,HEAD",
        },
    ))
}

fn bad_url(name: &str, value: &str, why: &str) -> RouteError {
    RouteError::Bad(format!("Invalid URL: Cannot parse `{name}` with value `{value}`: {why}"))
}

fn bad_query(why: &str) -> RouteError {
    RouteError::Bad(format!("Failed to deserialize query string: {why}"))
}

fn blob_id(text: &str) -> Result<BlobId, RouteError> {
    let text = decoded(text)?;
    text.parse().map_err(|_| bad_url("blob_id", &text, "failed to parse a blob ID"))
}

fn object_id(text: &str) -> Result<[u8; 32], RouteError> {
    let text = decoded(text)?;
    let bad = || bad_url("object_id", &text, "failed to parse an object ID");
    // Sui takes the digits with or without prefix, in either case, all 64 of them.
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(bad)
}

fn sliver(blob: &str, pair: &str, axis: &str) -> Result<SliverName, RouteError> {
    let blob = blob_id(blob)?;
    let pair = PairIndex(number(pair, 1)?);
    Ok(SliverName { blob, pair, axis: axis_kind(axis)? })
}

fn axis_kind(text: &str) -> Result<AxisKind, RouteError> {
    let text = decoded(text)?;
    text.parse().map_err(|_| {
        let why = format!("unknown variant `{text}`, expected `primary` or `secondary`");
        RouteError::Bad(format!("Invalid URL: {why}"))
    })
}

fn number(text: &str, position: usize) -> Result<u16, RouteError> {
    let text = decoded(text)?;
    text.parse().map_err(|_| {
        let what = format!("Cannot parse value at index {position} with value `{text}` to a `u16`");
        RouteError::Bad(format!("Invalid URL: {what}"))
    })
}

fn wait_ms(query: &str) -> Result<u64, RouteError> {
    let (mut wait, mut millis) = (false, 0);
    for (key, value) in parameters(query) {
        match key.as_str() {
            "wait_for_registration" => {
                let bad = |_| bad_query("provided string was not `true` or `false`");
                wait = value.parse().map_err(bad)?;
            }
            "wait_millis" => millis = value.parse().map_err(|_| bad_query("invalid digit"))?,
            _ => (),
        }
    }
    Ok(if wait { millis } else { 0 })
}

fn symbols(blob: BlobId, query: &str) -> Result<Route, RouteError> {
    let neither =
        || bad_query("data did not match any variant of untagged enum ListRecoverySymbolIdsFilter");
    let (mut ids, mut target, mut target_axis, mut proof_axis) = (Vec::new(), None, None, None);
    for (key, value) in parameters(query) {
        match key.as_str() {
            "id" => ids.push(value.parse::<SymbolId>().map_err(|_| neither())?),
            "targetSliver" => target = Some(value.parse().map_err(|_| neither())?),
            "targetType" => target_axis = Some(value.parse().map_err(|_| neither())?),
            "proofAxis" => {
                let why = format!("unknown variant `{value}`, expected `primary` or `secondary`");
                proof_axis = Some(value.parse().map_err(|_| bad_query(&why))?);
            }
            _ => (),
        }
    }
    ids.sort_unstable_by_key(|id| (id.primary.get(), id.secondary.get()));
    ids.dedup();
    let filter = match (ids.is_empty(), target, target_axis) {
        (false, _, _) => SymbolFilter::Ids(ids),
        (true, Some(target), Some(axis)) => SymbolFilter::ForSliver(axis, target),
        _ => return Err(neither()),
    };
    Ok(Route::Symbols { blob, filter, proof_axis })
}

fn decoding_symbols(blob: BlobId, query: &str) -> Result<Route, RouteError> {
    let (mut targets, mut axis) = (Vec::new(), None);
    for (key, value) in parameters(query) {
        match key.as_str() {
            "targetSlivers" => {
                targets
                    .push(value.parse().map_err(|_| bad_query("invalid digit in targetSlivers"))?);
            }
            "targetType" => {
                let why = format!("unknown variant `{value}`, expected `primary` or `secondary`");
                axis = Some(value.parse().map_err(|_| bad_query(&why))?);
            }
            _ => (),
        }
    }
    targets.sort_unstable();
    targets.dedup();
    let axis = axis.ok_or_else(|| bad_query("missing field `targetType`"))?;
    Ok(Route::DecodingSymbols { blob, targets, axis })
}

/// Keys and values of a query string; what is not UTF-8 is left out.
fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').take(QUERY_PARAMETERS_MAX).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decoded(&key.replace('+', " "))?, percent_decoded(&value.replace('+', " "))?))
    })
}

fn decoded(segment: &str) -> Result<String, RouteError> {
    percent_decoded(segment).ok_or_else(|| RouteError::Bad("Invalid URL: not UTF-8".to_owned()))
}

/// Resolves `%xx`; `None` if the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (first, tail) {
            (b'%', [a, b, after @ ..]) if digit(a).is_some() && digit(b).is_some() => {
                out.push(digit(a)? << 4 | digit(b)?);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const ID: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    #[test]
    fn methods_and_shapes() {
        let get = |path: &str| parse("GET", path, "");
        assert_eq!(get("/"), Err(RouteError::NotFound));
        assert_eq!(get("/v1/nothing"), Err(RouteError::NotFound));
        assert_eq!(get("/v1/blobs"), Err(RouteError::NotFound));
        assert_eq!(get(&format!("/v1/blobs/{ID}/metadata/")), Err(RouteError::NotFound));
        assert!(matches!(get(&format!("/v1/blobs/{ID}/metadata")), Ok(Route::Metadata(_))));
        assert!(matches!(
            parse("HEAD", &format!("/v1/blobs/{ID}/metadata"), ""),
            Ok(Route::Metadata(_))
        ));
        assert_eq!(
            parse("DELETE", &format!("/v1/blobs/{ID}/metadata"), ""),
            Err(RouteError::Method("GET,HEAD,PUT"))
        );
        assert_eq!(parse("GET", "/v1/migrate/sync_shard", ""), Err(RouteError::Method("POST")));
    }

    #[test]
    fn queries() {
        let path = format!("/v1/blobs/{ID}/recoverySymbols");
        let Ok(Route::Symbols { filter, proof_axis, .. }) =
            parse("GET", &path, "id=3-4&id=1-2&proofAxis=primary&id=3%2D4")
        else {
            panic!("no route")
        };
        let id = |text: &str| text.parse().unwrap();
        assert_eq!(filter, SymbolFilter::Ids(vec![id("1-2"), id("3-4")]));
        assert_eq!(proof_axis, Some(AxisKind::Primary));
        assert!(matches!(parse("GET", &path, "targetSliver=1"), Err(RouteError::Bad(_))));
        let wait = "wait_for_registration=true&wait_millis=250";
        let Ok(Route::Confirmation { wait_ms, .. }) =
            parse("GET", &format!("/v1/blobs/{ID}/confirmation/permanent"), wait)
        else {
            panic!("no route")
        };
        assert_eq!(wait_ms, 250);
    }
}
