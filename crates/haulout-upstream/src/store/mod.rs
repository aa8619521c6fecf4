//! One way to read a file of a cache, whatever kind of cache it is.

mod dir;
mod http;
pub(crate) mod s3;

use std::time::Duration;

use haulout_nix::Compression;

use crate::decompress::ByteStream;
use crate::error::Trouble;

pub(crate) use dir::DirStore;
pub(crate) use http::{Auth, HttpStore};

/// What tells one version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Validator {
    /// A strong entity tag, in its quotes.
    Etag(String),
    /// A weak entity tag: good for asking again, not for joining parts.
    Weak(String),
    /// A date.
    Modified(String),
}

/// A question for a file, or for a part of it.
#[derive(Debug, Default)]
pub(crate) struct Want<'a> {
    /// The file's name in the cache, already checked.
    pub(crate) key: &'a str,
    /// The first byte wanted.
    pub(crate) from: u64,
    /// The first byte not wanted any more; `None`: to the end.
    pub(crate) end: Option<u64>,
    /// The part is of use only if the file is still this one.
    pub(crate) part_of: Option<&'a Validator>,
    /// Nothing is wanted if the file is still this one.
    pub(crate) unless: Option<&'a Validator>,
}

/// The answer.
pub(crate) enum Got {
    /// The file, or a part of it.
    Object(Object),
    /// It is still the one that was named in `unless`; it may be kept for so long.
    NotModified(Option<Duration>),
    /// There is none; that may be believed for so long.
    Absent(Option<Duration>),
}

/// A file on its way.
pub(crate) struct Object {
    /// Where in the file the body begins: what was asked for, or 0 if the cache cannot do parts.
    pub(crate) from: u64,
    /// Bytes of the whole file, if said.
    pub(crate) total: Option<u64>,
    /// How to recognise this version.
    pub(crate) validator: Option<Validator>,
    /// How long it may be kept.
    pub(crate) lifetime: Option<Duration>,
    /// It says of itself that it is a web page.
    pub(crate) is_page: bool,
    /// A compression put on for the transport, to be undone.
    pub(crate) encoding: Option<Compression>,
    /// The bytes.
    pub(crate) body: ByteStream,
}

/// A cache as a place with files.
#[derive(Debug)]
pub(crate) enum Store {
    Http(Box<HttpStore>),
    Dir(DirStore),
}

impl Store {
    /// Whether it is told who asks.
    pub(crate) const fn is_private(&self) -> bool {
        match self {
            Self::Http(store) => !matches!(store.auth, Auth::None),
            // Who can read it is this machine's business.
            Self::Dir(_) => true,
        }
    }

    pub(crate) async fn get(&self, want: &Want<'_>) -> Result<Got, Trouble> {
        match self {
            Self::Http(store) => store.get(want).await,
            Self::Dir(store) => store.get(want).await,
        }
    }
}
