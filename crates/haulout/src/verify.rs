//! `haulout verify`: do store paths still have the contents that the database,
//! and a signature, say they have?

use std::path::Path;
use std::process::ExitCode;

use haulout_nix::conf::NixConf;
use haulout_nix::db::{Database, StoreLocation};
use haulout_nix::nar::hash_path;
use haulout_nix::{HashPart, KeySet, PathInfo};
use serde::Serialize;

use crate::cli::VerifyArgs;
use crate::error::{Context, Failure, Outcome};
use crate::{progress, report};

/// What was found about one path.
#[derive(Debug, Serialize)]
struct Finding {
    path: String,
    ok: bool,
    /// What is wrong, or empty.
    problems: Vec<String>,
    nar_size: u64,
    /// Name of the trusted key whose signature holds.
    signed_by: Option<String>,
}

/// Runs `haulout verify`; exit code 1 when anything is wrong.
pub(crate) fn run(args: &VerifyArgs) -> Outcome<ExitCode> {
    let location =
        args.store_root.as_deref().map_or_else(StoreLocation::system, StoreLocation::chroot);
    let database = Database::open(&location)
        .context(|| format!("cannot read the store database {}", location.db.display()))?;
    let keys = keys(args)?;
    let infos = wanted(&database, &location, &args.paths)?;
    let total = progress::nar_bytes(&infos);
    let bar = progress::bar(total);
    let mut bad = 0;
    for info in &infos {
        let finding = examine(&location, info, &keys, !args.keys.is_empty());
        bad += usize::from(!finding.ok);
        bar.inc(info.nar_size);
        bar.suspend(|| print_finding(&finding, args.json, args.paths.is_empty()));
    }
    bar.finish_and_clear();
    eprintln!("{} paths, {}: {} wrong", infos.len(), report::bytes(total), bad);
    Ok(ExitCode::from(u8::from(bad > 0)))
}

/// The keys to check signatures with: this machine's, and those demanded.
fn keys(args: &VerifyArgs) -> Outcome<KeySet> {
    if args.keys.is_empty() {
        return Ok(NixConf::load().trusted_public_keys);
    }
    let mut keys = KeySet::new();
    for text in &args.keys {
        let key = text.parse::<haulout_nix::PublicKey>().map_err(|error| {
            Failure::new(format!("--key {text:?} is not a public key"))
                .because(error)
                .hint("as in trusted-public-keys: NAME:BASE64")
        })?;
        keys.insert(key);
    }
    Ok(keys)
}

fn wanted(
    database: &Database,
    location: &StoreLocation,
    paths: &[String],
) -> Outcome<Vec<PathInfo>> {
    let reading = || format!("cannot read the store database {}", location.db.display());
    let hashes: Vec<HashPart> = if paths.is_empty() {
        let snapshot = database.load().context(reading)?;
        let snapshot = snapshot.ok_or_else(|| {
            Failure::new(format!("there is no store database at {}", location.db.display()))
                .hint("name a chroot store with --store-root DIR")
        })?;
        snapshot.rows.iter().map(|row| row.hash).collect()
    } else {
        paths.iter().map(|path| hash_of(location, path)).collect::<Outcome<_>>()?
    };
    let mut infos = Vec::with_capacity(hashes.len());
    for (index, hash) in hashes.iter().enumerate() {
        match database.path_info(hash).context(reading)? {
            Some(info) => infos.push(info),
            // Collected as garbage since the list was read.
            None if paths.is_empty() => {}
            None => {
                return Err(Failure::new(format!(
                    "{} is not a valid path of this store",
                    paths[index]
                ))
                .hint("`nix-store --query --valid` asks the same of Nix"));
            }
        }
    }
    Ok(infos)
}

/// The hash part of a path given in full, by base name, or as a place on disk.
fn hash_of(location: &StoreLocation, text: &str) -> Outcome<HashPart> {
    let base = Path::new(text)
        .strip_prefix(location.store_dir.as_str())
        .or_else(|_| Path::new(text).strip_prefix(&location.real_store))
        .unwrap_or_else(|_| Path::new(text));
    let base = base.components().next().map(|part| part.as_os_str().to_string_lossy());
    let path = base.as_deref().unwrap_or_default().parse::<haulout_nix::StorePath>();
    path.map(|path| path.hash_part()).map_err(|error| {
        Failure::new(format!("{text:?} is not a store path"))
            .because(error)
            .hint(format!("for example {}/<32 characters>-hello-2.12", location.store_dir.as_str()))
    })
}

fn examine(location: &StoreLocation, info: &PathInfo, keys: &KeySet, demand: bool) -> Finding {
    let mut problems = Vec::new();
    match hash_path(&location.real_path(&info.path)) {
        Err(error) => problems.push(format!("cannot be read: {error}")),
        Ok(digest) if digest.size != info.nar_size => {
            problems
                .push(format!("has {} bytes as a NAR, should have {}", digest.size, info.nar_size));
        }
        Ok(digest) if digest.hash != info.nar_hash => {
            problems.push(format!("has NAR hash {}, should have {}", digest.hash, info.nar_hash));
        }
        Ok(_) => {}
    }
    let signed_by = info.verified_by(&location.store_dir, keys).map(|key| key.name().to_owned());
    if demand && signed_by.is_none() {
        problems.push("has no valid signature by a given key".to_owned());
    }
    Finding {
        path: location.store_dir.display(&info.path),
        ok: problems.is_empty(),
        problems,
        nar_size: info.nar_size,
        signed_by,
    }
}

/// With `quiet`, good paths are not printed: a whole store has tens of thousands.
fn print_finding(finding: &Finding, json: bool, quiet: bool) {
    if json {
        // Strings, numbers and booleans always serialise.
        println!("{}", serde_json::to_string(finding).unwrap_or_default());
    } else if !finding.ok {
        println!("WRONG {}: {}", finding.path, finding.problems.join("; "));
    } else if !quiet {
        let signed = finding.signed_by.as_ref().map_or_else(
            || "no signature by a trusted key".to_owned(),
            |name| format!("signed by {name}"),
        );
        println!("ok    {} ({}, {signed})", finding.path, report::bytes(finding.nar_size));
    }
}
