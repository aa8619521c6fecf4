//! `archive ls | cat | verify | diff | status`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haulout_depot::{Found, Reader};
use haulout_nix::{HashPart, NarInfo, StoreDir};
use serde_json::json;

use super::args::{CatArgs, DiffArgs, LsArgs, ReadArgs, VerifyArchiveArgs};
use super::open::open;
use super::write::hashes;
use crate::error::{Context, Failure, Outcome};
use crate::report;

/// Paths that are taken from the index at a time.
const BATCH: usize = 10_000;

/// `archive ls`.
pub(super) async fn ls(args: &LsArgs) -> Outcome<()> {
    let reader = open(&args.place.archive, None).await?.left().await?;
    let dir = &reader.state().store_dir;
    let mut out = io::stdout().lock();
    each(&reader, |found| {
        let info = &found.path.info;
        let line = if args.json {
            json!({
                "path": format!("{dir}/{}", info.path),
                "nar_size": info.nar_size,
                "packed_size": found.path.nar.stored_len(),
                "nar_hash": info.nar_hash.to_string(),
                "references": info.references.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "signatures": info.signatures.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "level": found.level,
            })
            .to_string()
        } else {
            format!("{dir}/{}", info.path)
        };
        writeln!(out, "{line}").context(|| "cannot write the list".to_owned())
    })
    .await
}

/// Calls `take` with every path.
async fn each(reader: &Reader, mut take: impl FnMut(Found) -> Outcome<()>) -> Outcome<()> {
    let mut from = Some(HashPart::from_bytes([0; 20]));
    while let Some(start) = from {
        let (paths, next) =
            reader.list(start, BATCH).await.context(|| "cannot read the index".to_owned())?;
        for found in paths {
            take(found)?;
        }
        from = next;
    }
    Ok(())
}

/// `archive cat`.
pub(super) async fn cat(args: &CatArgs) -> Outcome<()> {
    let reader = open(&args.place.archive, None).await?.reader().await?;
    let dir: StoreDir = reader
        .state()
        .store_dir
        .parse()
        .context(|| "the archive's store directory is not one".to_owned())?;
    let hash = *hashes(&dir, std::slice::from_ref(&args.path))?
        .first()
        .ok_or_else(|| Failure::new("no path was given"))?;
    let found = reader.find(&hash).await.context(|| format!("cannot look {hash} up"))?;
    let found = found.ok_or_else(|| {
        Failure::new(format!("{} is not in the archive, which is proven", args.path))
    })?;
    if args.narinfo {
        print!("{}", NarInfo::raw(found.path.info).to_text(&dir));
        return Ok(());
    }
    let nar =
        reader.nar(&found).await.context(|| format!("cannot find the pack of {}", args.path))?;
    let mut out = io::stdout();
    nar.write_to(&mut out).await.context(|| format!("cannot read {}", args.path))?;
    out.flush().context(|| "cannot write the NAR".to_owned())
}

/// `archive verify`: exit code 1 when something is wrong.
pub(super) async fn verify(args: &VerifyArchiveArgs) -> Outcome<ExitCode> {
    let opened = open(&args.of.place.archive, None).await?;
    let reader = opened.left().await?;
    let epoch = opened.registry.epoch().await.context(|| "cannot read the epoch".to_owned())?;
    let findings = haulout_depot::verify::verify(&reader, epoch, args.deep)
        .await
        .context(|| "the archive could not be checked".to_owned())?;
    if args.of.json {
        let text =
            serde_json::to_string(&findings).context(|| "cannot print the findings".to_owned())?;
        println!("{text}");
    } else {
        for problem in &findings.problems {
            println!("{problem}");
        }
        let (paths, size) = (findings.paths, report::bytes(findings.nar_bytes));
        eprintln!(
            "sequence {}, epoch {epoch}: {paths} paths, {size}, in {} packs",
            findings.sequence, findings.packs
        );
        for (end, packs) in &findings.ends {
            eprintln!("  {packs} packs are stored until epoch {end}");
        }
        eprintln!("{} NARs read; {} problems", findings.nars_checked, findings.problem_count);
    }
    Ok(ExitCode::from(u8::from(!findings.is_well())))
}

/// `archive diff`.
pub(super) async fn diff(args: &DiffArgs) -> Outcome<()> {
    let (old, new) = (paths(&args.from).await?, paths(&args.to).await?);
    let mut out = io::stdout().lock();
    let mut line = |sign: char, path: &str| -> Outcome<()> {
        let text = if args.json {
            json!({ "change": match sign { '+' => "added", '-' => "removed", _ => "changed" }, "path": path }).to_string()
        } else {
            format!("{sign} {path}")
        };
        writeln!(out, "{text}").context(|| "cannot write the differences".to_owned())
    };
    for (path, hash) in &old {
        match new.get(path) {
            None => line('-', path)?,
            Some(other) if other != hash => line('~', path)?,
            Some(_) => {}
        }
    }
    for path in new.keys().filter(|path| !old.contains_key(*path)) {
        line('+', path)?;
    }
    Ok(())
}

/// All paths of an archive with what makes them what they are.
async fn paths(place: &Path) -> Outcome<BTreeMap<String, (String, Vec<String>)>> {
    let reader = open(place, None).await?.reader().await?;
    let dir = reader.state().store_dir.clone();
    let mut all = BTreeMap::new();
    each(&reader, |found| {
        let info = &found.path.info;
        let signatures = info.signatures.iter().map(ToString::to_string).collect();
        all.insert(format!("{dir}/{}", info.path), (info.nar_hash.to_string(), signatures));
        Ok(())
    })
    .await?;
    Ok(all)
}

/// `archive status`.
pub(super) async fn status(args: &ReadArgs) -> Outcome<()> {
    let opened = open(&args.place.archive, None).await?;
    let state =
        opened.registry.state().await.context(|| "cannot read the archive's state".to_owned())?;
    let epoch = opened.registry.epoch().await.context(|| "cannot read the epoch".to_owned())?;
    let id: String = state.id.iter().map(|byte| format!("{byte:02x}")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(state.updated_ms));
    let ends = state.levels.iter().map(|level| level.end_epoch).min();
    if args.json {
        let levels: Vec<_> = state
            .levels
            .iter()
            .map(|level| {
                json!({
                    "entries": level.leaves, "index_blob": level.blob.to_string(),
                    "index_size": level.size, "end_epoch": level.end_epoch,
                })
            })
            .collect();
        let value = json!({
            "archive": format!("0x{id}"), "name": state.name, "store_dir": state.store_dir,
            "sequence": state.sequence, "updated_ms": state.updated_ms, "frozen": state.frozen,
            "epoch": epoch, "ends_with_epoch": ends, "levels": levels,
        });
        println!("{value}");
        return Ok(());
    }
    println!("archive 0x{id} {:?} for {}", state.name, state.store_dir);
    let frozen = if state.frozen { ", frozen" } else { "" };
    match state.sequence {
        0 => println!("nothing was published yet{frozen}"),
        sequence => println!("sequence {sequence}, updated {} ago{frozen}", report::duration(age)),
    }
    if let Some(end) = ends {
        println!("epoch {epoch}; stored until epoch {end}");
    }
    let mut table =
        report::Table::new(&["level", "entries", "size", "until", "index blob"], &[1, 2, 3]);
    for (i, level) in state.levels.iter().enumerate() {
        table.row([
            i.to_string(),
            level.leaves.to_string(),
            report::bytes(level.size),
            level.end_epoch.to_string(),
            level.blob.to_string(),
        ]);
    }
    if !table.is_empty() {
        print!("{}", table.render());
    }
    Ok(())
}
