//! Where paths come from: a local Nix store, and their closures.

use crate::{BoxFuture, DepotError, Kind, NarSource};
use haulout_nix::{
    HashPart, PathInfo,
    db::{Database, StoreLocation},
};
use std::{collections::HashMap, io::Write};

/// The paths of a local Nix store.
#[derive(Debug)]
pub struct StoreSource {
    location: StoreLocation,
    database: Database,
}

impl StoreSource {
    /// Of the store at a location.
    ///
    /// # Errors
    /// When its database cannot be opened.
    pub fn open(location: &StoreLocation) -> Result<Self, DepotError> {
        let database = Database::open(location).map_err(|error| {
            DepotError::new(
                Kind::Local,
                format!("cannot read the store database {}", location.db.display()),
            )
            .because(error)
        })?;
        Ok(Self { location: location.clone(), database })
    }
}

impl NarSource for StoreSource {
    fn info(&self, hash: HashPart) -> BoxFuture<'_, Result<Option<PathInfo>, DepotError>> {
        Box::pin(async move {
            self.database.path_info(&hash).map_err(|error| {
                DepotError::new(Kind::Local, "cannot read the store database").because(error)
            })
        })
    }

    fn dump<'a>(
        &'a self,
        info: &'a PathInfo,
        mut out: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), DepotError>> {
        // Called on a thread that may block.
        Box::pin(async move {
            let path = self.location.real_path(&info.path);
            haulout_nix::nar::dump(&path, &mut out)
                .map_err(|error| DepotError::local(format_args!("read {}", path.display()), error))
        })
    }
}

/// The closure of some paths in a source: their infos, in no particular order.
///
/// # Errors
/// When a path is not there, or there are more than `max`.
pub async fn closure(
    source: &dyn NarSource,
    roots: &[HashPart],
    max: usize,
) -> Result<Vec<PathInfo>, DepotError> {
    let mut infos: HashMap<HashPart, PathInfo> = HashMap::new();
    let mut wanted: Vec<(HashPart, Option<String>)> =
        roots.iter().map(|root| (*root, None)).collect();
    while let Some((hash, of)) = wanted.pop() {
        if infos.contains_key(&hash) {
            continue;
        }
        if infos.len() == max {
            return Err(DepotError::new(
                Kind::Refused,
                format!("the closure has more than {max} paths"),
            ));
        }
        let Some(info) = source.info(hash).await? else {
            let whose = of.map(|of| format!(", which {of} needs")).unwrap_or_default();
            return Err(DepotError::new(Kind::Missing, format!("there is no path {hash}{whose}")));
        };
        let name = info.path.to_string();
        wanted.extend(info.references.iter().map(|path| (path.hash_part(), Some(name.clone()))));
        infos.insert(hash, info);
    }
    let mut infos: Vec<PathInfo> = infos.into_values().collect();
    infos.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(infos)
}
