//! One path with everything the database knows of it.

use std::collections::{HashSet, VecDeque};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::rows::text;
use super::{BadRow, DbError};
// A path with more could not be described by a narinfo anyway.
use crate::narinfo::REFERENCES_MAX;
use crate::{HashPart, PathInfo, StoreDir, StorePath};

pub(super) fn path_info(
    conn: &Connection,
    store_dir: &StoreDir,
    hash: &HashPart,
) -> Result<Option<PathInfo>, DbError> {
    // Ordered by path this walks the unique index and stops at the first row.
    let mut find = conn.prepare_cached(
        "select id, path, hash, deriver, narSize, sigs, ca from ValidPaths
         where path >= ?1 order by path limit 1",
    )?;
    let prefix = format!("{}/{hash}", store_dir.as_str());
    let mut rows = find.query([&prefix])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let ValueRef::Text(path) = row.get_ref(1)? else {
        return Ok(None);
    };
    if !path.starts_with(prefix.as_bytes()) {
        return Ok(None);
    }
    let id: i64 = row.get(0)?;
    let bad = |reason: String| DbError::BadRow(BadRow::new(id, ValueRef::Text(path), reason));
    let mut info = parse(row, store_dir).map_err(bad)?;
    info.references = references(conn, store_dir, id)?.map_err(bad)?;
    Ok(Some(info))
}

fn parse(row: &rusqlite::Row<'_>, store_dir: &StoreDir) -> Result<PathInfo, String> {
    let column = |index: usize, name: &str| {
        row.get_ref(index).map_err(|error| error.to_string()).and_then(|value| text(value, name))
    };
    let path = column(1, "path")?.ok_or("no path")?;
    let nar_hash = column(2, "hash")?.ok_or("no hash")?;
    // Very old Nix versions did not record sizes. Without one there is no
    // valid narinfo and no fingerprint.
    let nar_size = match row.get_ref(4).map_err(|error| error.to_string())? {
        ValueRef::Integer(size) if size > 0 => size.unsigned_abs(),
        ValueRef::Null | ValueRef::Integer(0) => return Err("no NAR size recorded".to_owned()),
        _ => return Err("narSize is not a positive number".to_owned()),
    };
    let deriver = column(3, "deriver")?
        .filter(|deriver| !deriver.is_empty() && *deriver != "unknown-deriver")
        .map(|deriver| store_dir.parse_path(deriver).map_err(|error| format!("deriver: {error}")));
    let ca = column(6, "ca")?
        .filter(|ca| !ca.is_empty())
        .map(|ca| ca.parse().map_err(|error| format!("ca: {error}")));
    Ok(PathInfo {
        path: store_dir.parse_path(path).map_err(|error| format!("path: {error}"))?,
        nar_hash: nar_hash.parse().map_err(|error| format!("hash: {error}"))?,
        nar_size,
        references: Vec::new(),
        deriver: deriver.transpose()?,
        // A signature in a form we do not know proves nothing to us; the
        // others are as good as before.
        signatures: column(5, "sigs")?
            .unwrap_or_default()
            .split_ascii_whitespace()
            .filter_map(|sig| sig.parse().ok())
            .collect(),
        ca: ca.transpose()?,
    })
}

/// The references of a row, sorted. The table has them in order of id, and
/// fingerprints need them in order of path.
fn references(
    conn: &Connection,
    store_dir: &StoreDir,
    id: i64,
) -> Result<Result<Vec<StorePath>, String>, DbError> {
    let mut statement = conn.prepare_cached(
        "select path from Refs join ValidPaths on reference = id where referrer = ?1",
    )?;
    let mut rows = statement.query([id])?;
    let mut paths = Vec::new();
    while let Some(row) = rows.next()? {
        if paths.len() >= REFERENCES_MAX {
            return Ok(Err(format!("more than {REFERENCES_MAX} references")));
        }
        let parsed = text(row.get_ref(0)?, "reference").and_then(|path| {
            let path = path.ok_or("no path")?;
            store_dir.parse_path(path).map_err(|error| format!("reference: {error}"))
        });
        match parsed {
            Ok(path) => paths.push(path),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(Ok(paths))
}

pub(super) fn closure(
    conn: &Connection,
    store_dir: &StoreDir,
    hash: &HashPart,
    max: usize,
) -> Result<Vec<PathInfo>, DbError> {
    let mut infos = Vec::new();
    let mut seen = HashSet::from([*hash]);
    let mut next = VecDeque::from([*hash]);
    while let Some(hash) = next.pop_front() {
        if infos.len() >= max {
            break;
        }
        let info = match path_info(conn, store_dir, &hash) {
            Ok(Some(info)) => info,
            Err(error) if infos.is_empty() => return Err(error),
            Ok(None) | Err(DbError::BadRow(_)) => continue,
            Err(error) => return Err(error),
        };
        for reference in &info.references {
            // What can never be answered need not be remembered.
            if seen.len() < max && seen.insert(reference.hash_part()) {
                next.push_back(reference.hash_part());
            }
        }
        infos.push(info);
    }
    Ok(infos)
}
