//! S3-compatible services.
//!
//! `object_store` knows the credentials and makes the signatures; the requests themselves go
//! through the same client as all others, with a signed URL each, so that ranges, faults and
//! limits are dealt with in one place.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::Signer;

use super::super::http::Client;
use crate::address::Bucket;
use crate::error::Trouble;

mod connector;
mod profile;

/// How long a signed URL is good for: longer than any request may take to begin.
const SIGNED_FOR: Duration = Duration::from_secs(3600);

/// How often, and for how long, a failed write is tried again.
const WRITE_RETRIES: usize = 5;
const RETRY_TIME: Duration = Duration::from_secs(60);

/// Access to a bucket.
#[derive(Clone)]
pub(crate) struct S3 {
    store: Arc<AmazonS3>,
    prefix: String,
    /// The bucket's URL, for requests without a signature: there are no credentials.
    anonymous: Option<String>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Where credentials come from, besides the bucket's URL.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `AWS_*` variables.
    pub(crate) variables: Vec<(String, String)>,
    /// `~/.aws/credentials` and `~/.aws/config`, or what the variables name.
    pub(crate) files: Vec<PathBuf>,
    /// This machine is an Amazon instance, whose metadata service gives credentials. Elsewhere
    /// that address leads nowhere, and asking it costs time.
    pub(crate) instance: bool,
}

impl Environment {
    /// What this process sees.
    pub(crate) fn of_process() -> Self {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("AWS_"))
            .collect();
        let named = |name: &str| {
            variables.iter().find(|(n, _)| n == name).map(|(_, value)| PathBuf::from(value))
        };
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
        let files = [
            named("AWS_SHARED_CREDENTIALS_FILE").unwrap_or_else(|| home.join(".aws/credentials")),
            named("AWS_CONFIG_FILE").unwrap_or_else(|| home.join(".aws/config")),
        ];
        let vendor = std::fs::read_to_string("/sys/devices/virtual/dmi/id/sys_vendor");
        let instance = vendor.is_ok_and(|vendor| vendor.trim() == "Amazon EC2");
        Self { variables, files: files.into(), instance }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl S3 {
    /// Opens a bucket with the credentials of the environment: variables first (unless the URL
    /// names a profile), then the credentials file, then what a container or an instance is given;
    /// none at all: without signatures.
    pub(crate) fn open(
        bucket: &Bucket,
        environment: &Environment,
        client: Client,
    ) -> Result<Self, String> {
        // The circuit breaker decides about trying again, in one place.
        Self::open_with(bucket, environment, client, 0)
    }

    /// As [`S3::open`]; failed writes are tried again.
    pub(crate) fn open_for_writing(
        bucket: &Bucket,
        environment: &Environment,
        client: Client,
    ) -> Result<Self, String> {
        Self::open_with(bucket, environment, client, WRITE_RETRIES)
    }

    fn open_with(
        bucket: &Bucket,
        environment: &Environment,
        client: Client,
        max_retries: usize,
    ) -> Result<Self, String> {
        let wanted = bucket.profile.as_deref().or_else(|| environment.variable("AWS_PROFILE"));
        let profile = profile::read(&environment.files, wanted.unwrap_or("default"))?;
        if bucket.profile.is_some() && profile.is_empty() {
            let name = wanted.unwrap_or_default();
            return Err(format!("there is no profile {name:?} in the credentials files"));
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&bucket.name)
            .with_http_connector(connector::Connect::new(client))
            .with_retry(RetryConfig {
                max_retries,
                retry_timeout: RETRY_TIME,
                ..RetryConfig::default()
            })
            .with_virtual_hosted_style_request(bucket.virtual_hosted);
        let region = [
            bucket.region.as_deref(),
            environment.variable("AWS_REGION"),
            environment.variable("AWS_DEFAULT_REGION"),
            profile.get("region").map(String::as_str),
        ];
        let region = region.into_iter().flatten().next().unwrap_or("us-east-1").to_owned();
        builder = builder.with_region(&region);
        if let Some(endpoint) = &bucket.endpoint {
            builder =
                builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http:"));
        }
        let (builder, signed) = credentials(builder, bucket, environment, &profile);
        let store = builder.build().map_err(|error| error.to_string())?;
        let anonymous = (!signed).then(|| bucket_url(bucket, &region));
        Ok(Self { store: Arc::new(store), prefix: bucket.prefix.clone(), anonymous })
    }

    /// The URL that reads a file, with a signature in it.
    pub(crate) async fn url(&self, key: &str) -> Result<String, Trouble> {
        if let Some(base) = &self.anonymous {
            return Ok(format!("{base}/{}{key}", self.prefix));
        }
        let url = self.store.signed_url(Method::GET, &self.path(key), SIGNED_FOR).await;
        url.map(String::from).map_err(|error| Trouble::Unusable(credentials_error(&error)))
    }

    /// The bucket for writing.
    pub(crate) fn store(&self) -> &Arc<AmazonS3> {
        &self.store
    }

    /// The full key of a file.
    pub(crate) fn path(&self, key: &str) -> Path {
        Path::from(format!("{}{key}", self.prefix))
    }
}

fn bucket_url(bucket: &Bucket, region: &str) -> String {
    match (&bucket.endpoint, bucket.virtual_hosted) {
        (Some(endpoint), true) => endpoint.clone(),
        (Some(endpoint), false) => format!("{endpoint}/{}", bucket.name),
        (None, true) => format!("https://{}.s3.{region}.amazonaws.com", bucket.name),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{}", bucket.name),
    }
}

/// Adds the credentials; false: there are none.
fn credentials(
    builder: AmazonS3Builder,
    bucket: &Bucket,
    environment: &Environment,
    profile: &profile::Profile,
) -> (AmazonS3Builder, bool) {
    let variables =
        (environment.variable("AWS_ACCESS_KEY_ID"), environment.variable("AWS_SECRET_ACCESS_KEY"));
    let fixed = match variables {
        (Some(id), Some(secret)) if bucket.profile.is_none() => {
            Some((id, secret, environment.variable("AWS_SESSION_TOKEN")))
        }
        _ => match (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")) {
            (Some(id), Some(secret)) => Some((
                id.as_str(),
                secret.as_str(),
                profile.get("aws_session_token").map(String::as_str),
            )),
            _ => None,
        },
    };
    if let Some((id, secret, token)) = fixed {
        let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        return match token {
            Some(token) => (builder.with_token(token), true),
            None => (builder, true),
        };
    }
    // What containers are given; `object_store` knows the variables by their names.
    const GIVEN: [&str; 6] = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ];
    let mut builder = builder;
    let mut given = environment.instance;
    for name in GIVEN {
        if let Some(value) = environment.variable(name)
            && let Ok(key) = name.to_ascii_lowercase().parse()
        {
            builder = builder.with_config(key, value);
            given = true;
        }
    }
    if given { (builder, true) } else { (builder.with_skip_signature(true), false) }
}

fn credentials_error(error: &object_store::Error) -> String {
    format!("no credentials for the bucket: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, CacheUrl};

    fn open(url: &str, environment: &Environment) -> Result<S3, String> {
        let url: CacheUrl = url.parse().unwrap();
        let Address::S3(bucket) = url.address else { panic!() };
        S3::open(&bucket, environment, crate::testing::client())
    }

    #[tokio::test]
    async fn without_credentials_nothing_is_signed() {
        let s3 = open("s3://nix-cache/p?region=eu-west-1", &Environment::default()).unwrap();
        let url = s3.url("x.narinfo").await.unwrap();
        assert_eq!(url, "https://s3.eu-west-1.amazonaws.com/nix-cache/p/x.narinfo");
    }

    #[tokio::test]
    async fn variables_and_profiles() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        let text = "[default]\naws_access_key_id = D\naws_secret_access_key = d\n\
                    [ci]\naws_access_key_id=C\naws_secret_access_key=c\nregion = us-west-9\n";
        std::fs::write(&file, text).unwrap();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = Environment {
            variables: vec![
                variable("AWS_ACCESS_KEY_ID", "V"),
                variable("AWS_SECRET_ACCESS_KEY", "v"),
            ],
            files: vec![file.clone()],
            instance: false,
        };
        let only_file = Environment { files: vec![file], ..Environment::default() };
        for (url, environment, who) in [
            ("s3://bucket", &both, "V%2F"),
            ("s3://bucket", &only_file, "D%2F"),
            ("s3://bucket?profile=ci", &both, "C%2F"),
        ] {
            let url = open(url, environment).unwrap().url("k").await.unwrap();
            assert!(url.contains(&format!("X-Amz-Credential={who}")), "{url}");
        }
        let url = open("s3://bucket?profile=ci", &only_file).unwrap().url("k").await.unwrap();
        assert!(url.starts_with("https://s3.us-west-9.amazonaws.com/bucket/k?"), "{url}");
        assert!(open("s3://bucket?profile=nobody", &only_file).unwrap_err().contains("nobody"));
    }
}
