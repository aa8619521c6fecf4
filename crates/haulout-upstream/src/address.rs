//! The URLs under which caches are named, as Nix writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Longest URL of a cache, in characters.
const URL_LEN_MAX: usize = 2048;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http://` or `https://`; without a final slash, without name and password.
    Http {
        /// The URL.
        base: String,
        /// Name and password that stood in the URL.
        login: Option<Login>,
    },
    /// `s3://`.
    S3(Bucket),
    /// `file://`: a directory of this machine (or one it mounts).
    Dir(PathBuf),
}

/// A name and a password. Debug shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// A bucket of an S3-compatible service, from `s3://BUCKET[/PREFIX]?endpoint=…&region=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all keys begin with; empty or ending in `/`.
    pub prefix: String,
    /// Scheme and host of the service; `None`: Amazon's of the region.
    pub endpoint: Option<String>,
    /// Its region; `None`: from the environment or the profile, else `us-east-1`.
    pub region: Option<String>,
    /// Which section of the credentials file to use.
    pub profile: Option<String>,
    /// The bucket's name goes into the host name instead of the path.
    pub virtual_hosted: bool,
}

/// Where a cache is, with what its URL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUrl {
    /// Where.
    pub address: Address,
    /// `?priority=`, which wins over what the cache says.
    pub priority: Option<i64>,
    /// For targets: `?compression=`.
    pub compression: Option<String>,
    /// The URL for people and as a name: no parameters but those that say which cache is meant,
    /// no password.
    name: String,
}

/// Why a text does not name a cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A store of Nix that is no binary cache (`daemon`, `ssh://…`, a path), or rubbish.
    #[error(
        "not the URL of a binary cache: it must begin with https://, http://, s3:// or file://"
    )]
    Scheme,
    /// A part is missing or has a form it cannot have.
    #[error("{0}")]
    Part(&'static str),
}

impl CacheUrl {
    /// The URL for people and as a name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether it is a server on this very machine. Such a one may be another agent, which asks
    /// this one: nobody should ask it for the site.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        let Address::Http { base, .. } = &self.address else { return false };
        match Url::parse(base).ok().as_ref().and_then(Url::host) {
            Some(url::Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
            Some(url::Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
            Some(url::Host::Ipv6(ip)) => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
            }
            None => false,
        }
    }
}

impl fmt::Display for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for CacheUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > URL_LEN_MAX {
            return Err(AddressError::Part("the URL is too long"));
        }
        let url = Url::parse(text).map_err(|_| AddressError::Scheme)?;
        let address = match url.scheme() {
            "http" | "https" => http(&url)?,
            "s3" => Address::S3(bucket(&url)?),
            "file" => dir(&url)?,
            _ => return Err(AddressError::Scheme),
        };
        let priority = match parameter(&url, "priority") {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| AddressError::Part("priority must be a number"))?)
            }
        };
        let name = name(&url, &address);
        Ok(Self { address, priority, compression: parameter(&url, "compression"), name })
    }
}

fn parameter(url: &Url, key: &str) -> Option<String> {
    url.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

fn http(url: &Url) -> Result<Address, AddressError> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err(AddressError::Part("the URL names no host"));
    }
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = (!url.username().is_empty() || url.password().is_some()).then(|| Login {
        name: decode(url.username()),
        password: decode(url.password().unwrap_or_default()),
    });
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    // Neither can fail for a URL with a host.
    let _ = base.set_username("");
    let _ = base.set_password(None);
    Ok(Address::Http { base: base.as_str().trim_end_matches('/').to_owned(), login })
}

fn bucket(url: &Url) -> Result<Bucket, AddressError> {
    let name = url.host_str().unwrap_or_default().to_owned();
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !(3..=255).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(AddressError::Part(
            "the bucket's name must be 3 to 255 letters, digits, '-', '.'",
        ));
    }
    let prefix = match url.path().trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let scheme = match parameter(url, "scheme").as_deref() {
        None | Some("https") => "https",
        Some("http") => "http",
        Some(_) => return Err(AddressError::Part("scheme must be http or https")),
    };
    let endpoint = match parameter(url, "endpoint") {
        None => None,
        // Nix takes a host name with `scheme` beside it, newer versions a URL too.
        Some(host) if !host.contains("://") => Some(format!("{scheme}://{host}")),
        Some(url) => Some(url),
    };
    let endpoint = match endpoint {
        None => None,
        Some(text) => {
            let url = Url::parse(&text)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
            let url =
                url.ok_or(AddressError::Part("endpoint must be a host name or a http(s) URL"))?;
            Some(url.as_str().trim_end_matches('/').to_owned())
        }
    };
    let virtual_hosted = match parameter(url, "addressing-style").as_deref() {
        None | Some("auto" | "path") => false,
        Some("virtual") => true,
        Some(_) => return Err(AddressError::Part("addressing-style must be path or virtual")),
    };
    let (region, profile) = (parameter(url, "region"), parameter(url, "profile"));
    Ok(Bucket { name, prefix, endpoint, region, profile, virtual_hosted })
}

fn dir(url: &Url) -> Result<Address, AddressError> {
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(AddressError::Part("a directory is written file:///PATH, with three slashes"));
    }
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    let path =
        plain.to_file_path().map_err(|()| AddressError::Part("the URL has no usable path"))?;
    if path.components().count() < 2 {
        return Err(AddressError::Part("the URL names no directory"));
    }
    Ok(Address::Dir(path))
}

fn name(url: &Url, address: &Address) -> String {
    match address {
        Address::Http { base, .. } => base.clone(),
        Address::Dir(path) => format!("file://{}", path.display()),
        Address::S3(bucket) => {
            let mut name = format!("s3://{}/{}", bucket.name, bucket.prefix);
            name.truncate(name.trim_end_matches('/').len());
            // Two services can have a bucket of the same name.
            if let Some(endpoint) = parameter(url, "endpoint") {
                name.push_str(&format!("?endpoint={endpoint}"));
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CacheUrl, AddressError> {
        text.parse()
    }

    #[test]
    fn the_usual_ones() {
        let url = parse("https://cache.nixos.org/").unwrap();
        assert_eq!(url.as_str(), "https://cache.nixos.org");
        assert_eq!(url.priority, None);
        let url = parse("https://me:p%40ss@c.example/team/?priority=10&trusted=1").unwrap();
        assert_eq!((url.as_str(), url.priority), ("https://c.example/team", Some(10)));
        let Address::Http { login: Some(login), .. } = &url.address else { panic!() };
        assert_eq!((login.name.as_str(), login.password.as_str()), ("me", "p@ss"));
        assert!(!format!("{url:?}").contains("p@ss"));
        let url = parse("file:///var/cache/nix%20files?compression=zstd").unwrap();
        assert_eq!(url.address, Address::Dir("/var/cache/nix files".into()));
        assert_eq!(url.compression.as_deref(), Some("zstd"));
    }

    #[test]
    fn buckets_as_nix_writes_them() {
        let url =
            parse("s3://my-cache/a/b/?endpoint=minio.lan:9000&scheme=http&region=eu-1&profile=ci")
                .unwrap();
        assert_eq!(url.as_str(), "s3://my-cache/a/b?endpoint=minio.lan:9000");
        let Address::S3(bucket) = url.address else { panic!() };
        assert_eq!(bucket.endpoint.as_deref(), Some("http://minio.lan:9000"));
        assert_eq!(bucket.prefix, "a/b/");
        assert_eq!(bucket.region.as_deref(), Some("eu-1"));
        assert_eq!(bucket.profile.as_deref(), Some("ci"));
        let plain = parse("s3://nix-cache").unwrap();
        assert_eq!(plain.as_str(), "s3://nix-cache");
    }

    #[test]
    fn what_is_no_cache() {
        for text in [
            "",
            "daemon",
            "auto",
            "local",
            "/nix-cache",
            "ssh://host",
            "ssh-ng://host",
            "unix:///x",
            "https://",
            "file://host/x",
            "file:///",
            "s3://",
            "s3://a",
            "s3://b_b?scheme=ftp",
            "s3://bbb?endpoint=ftp://x",
            "https://x?priority=high",
            "javascript:alert(1)",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for text in [
            "http://localhost:5299",
            "http://127.0.0.1:1",
            "http://[::1]/",
            "http://127.9.9.9",
            "http://a.localhost",
            "http://0.0.0.0:5299",
            "http://[::ffff:127.0.0.1]/",
            "http://LOCALHOST./",
        ] {
            assert!(parse(text).unwrap().is_this_machine(), "{text}");
        }
        for text in
            ["https://cache.nixos.org", "http://10.0.0.1", "http://localhost.example", "file:///x"]
        {
            assert!(!parse(text).unwrap().is_this_machine(), "{text}");
        }
    }
}
