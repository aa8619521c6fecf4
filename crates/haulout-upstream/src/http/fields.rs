//! Header fields with a meaning for us.

use std::time::{Duration, SystemTime};

use hyper::header::{self, HeaderMap};

/// `Retry-After`: seconds, or a date after `now`.
pub(crate) fn retry_after(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

/// How long an answer may be kept, as far as the sender says: `max-age` of `Cache-Control`, zero
/// for `no-store` and `no-cache`.
pub(crate) fn lifetime(fields: &HeaderMap) -> Option<Duration> {
    let mut lifetime = None;
    for line in fields.get_all(header::CACHE_CONTROL).iter().take(4) {
        for word in line.to_str().ok()?.split(',').map(str::trim) {
            match word.split_once('=') {
                Some((name, value)) if name.eq_ignore_ascii_case("max-age") => {
                    let seconds = value.trim_matches('"').parse().ok()?;
                    lifetime.get_or_insert_with(|| Duration::from_secs(seconds));
                }
                None if word.eq_ignore_ascii_case("no-store")
                    || word.eq_ignore_ascii_case("no-cache") =>
                {
                    lifetime = Some(Duration::ZERO);
                }
                _ => {}
            }
        }
    }
    lifetime
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, header::HeaderValue::from_static(value))])
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let after = |value| retry_after(&fields(header::RETRY_AFTER, value), now);
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Wed, 21 Oct 2026 07:29:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Wed, 21 Oct 2020 07:29:00 GMT"), None);
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }

    #[test]
    fn lifetimes() {
        let life = |value| lifetime(&fields(header::CACHE_CONTROL, value));
        assert_eq!(
            life("public, max-age=31536000, immutable"),
            Some(Duration::from_secs(31_536_000))
        );
        assert_eq!(life("Max-Age=\"5\""), Some(Duration::from_secs(5)));
        assert_eq!(life("no-store"), Some(Duration::ZERO));
        assert_eq!(life("max-age=x"), None);
        assert_eq!(life("public"), None);
    }
}
