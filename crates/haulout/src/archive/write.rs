//! `archive init | publish | import | merge | fund`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use haulout_archive::pack::TARGET_BYTES;
use haulout_depot::publish::{Options, Progress, Report, StoreSource, closure, publish};
use haulout_depot::{DirDepot, NarSource, Update};
use haulout_nix::db::StoreLocation;
use haulout_nix::{HashPart, PathInfo, SecretKey, StoreDir};
use haulout_onchain::{ArchiveFile, create};
use haulout_sui::ObjectId;
use redstuff::ShardCount;
use serde_json::json;

use super::args::{FundArgs, ImportArgs, InitArgs, MergeArgs, PublishArgs, StoreArgs, WriteArgs};
use super::open::{Opened, network, no_anchor, open, wallet};
use super::source::CacheSource;
use crate::error::{Context, Failure, Outcome};
use crate::wallet::state_dir;
use crate::{progress, report};

/// Most paths published at once.
const PATHS_MAX: usize = 1_000_000;
/// Longest key file, in bytes.
const KEY_BYTES_MAX: u64 = 4096;

/// `archive init`.
pub(super) async fn init(args: &InitArgs) -> Outcome<()> {
    let shown = args.target.display();
    let Some(name) = &args.network else {
        let shards = ShardCount::new(args.shards)
            .context(|| format!("--shards {} cannot be used", args.shards))?;
        DirDepot::create(&args.target, shards, &args.store_dir, &args.name)
            .context(|| format!("cannot make an archive in {shown}"))?;
        if args.json {
            println!("{}", serde_json::json!({ "archive": null, "target": args.target }));
        }
        eprintln!("an archive for rehearsals is in {shown}; nothing was paid");
        return Ok(());
    };
    if !may_be_written(&args.target)? {
        return Err(Failure::new(format!("{shown} exists already"))
            .hint("name a new file; it will say which object the archive is"));
    }
    let chain = network(name)?;
    let package = args.package.as_deref().map(str::parse::<ObjectId>).transpose();
    let package = package
        .map_err(|_| Failure::new("--package is not an object id").hint("0x and 64 hex digits"))?;
    if chain.trust_anchor.is_none() {
        return Err(Failure::new(format!(
            "nothing can be proven on {name}: it has no trust anchor"
        ))
        .hint(no_anchor(&chain)));
    }
    let wallet = wallet(&chain, &args.wallet, &state_dir()?)?;
    let created = create(&wallet, package, &args.store_dir, &args.name)
        .await
        .context(|| format!("cannot make an archive on {name}"))?;
    let file = ArchiveFile {
        network: absolute(name)?,
        archive: created.archive,
        package: created.package,
        publisher_cap: Some(created.publisher_cap),
        owner_cap: Some(created.owner_cap),
    };
    if args.json {
        let value = serde_json::json!({
            "archive": created.archive.to_string(), "package": created.package.to_string(), "target": args.target,
        });
        println!("{value}");
    } else {
        println!("{}", created.archive);
    }
    std::fs::write(&args.target, file.to_toml())
        .context(|| format!("cannot write {shown}"))
        .map_err(|failure| {
            failure.hint(format!(
                "the archive was made; this belongs into the file:\n{}",
                file.to_toml()
            ))
        })?;
    eprintln!("the archive is named by {shown}; there is no secret in it");
    Ok(())
}

/// Whether a file can be made there, which is looked at before anything is paid: a directory that does not
/// exist would be noticed too late otherwise.
fn may_be_written(target: &Path) -> Outcome<bool> {
    match std::fs::OpenOptions::new().write(true).create_new(true).open(target) {
        Ok(_) => std::fs::remove_file(target)
            .map(|()| true)
            .context(|| format!("cannot write {}", target.display())),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).context(|| format!("cannot write {}", target.display())),
    }
}

/// The name of a preset as it is, a file by its full path.
fn absolute(network: &str) -> Outcome<String> {
    if haulout_sui::Network::preset(network).is_some() {
        return Ok(network.to_owned());
    }
    let path = Path::new(network).canonicalize();
    path.map(|path| path.display().to_string()).context(|| format!("cannot find {network}"))
}

/// `archive publish`.
pub(super) async fn from_store(args: &PublishArgs) -> Outcome<()> {
    let opened = open(&args.to.place.archive, Some(&args.to.wallet)).await?;
    let location =
        args.store_root.as_deref().map_or_else(StoreLocation::system, StoreLocation::chroot);
    let source = StoreSource::open(&location).context(|| "cannot read the store".to_owned())?;
    let roots = hashes(&location.store_dir, &args.paths)?;
    let source: Arc<dyn NarSource> = Arc::new(source);
    let infos = if args.no_closure {
        infos(&*source, &roots).await?
    } else {
        let found = closure(&*source, &roots, PATHS_MAX).await;
        found.context(|| "cannot find everything that these paths need".to_owned())?
    };
    run(&opened, source, infos, roots, &args.store, args.to.json).await
}

/// `archive import`.
pub(super) async fn from_cache(args: &ImportArgs) -> Outcome<()> {
    let opened = open(&args.to.place.archive, Some(&args.to.wallet)).await?;
    let state =
        opened.registry.state().await.context(|| "cannot read the archive's state".to_owned())?;
    let (source, listed) = CacheSource::open(&args.from, &state.store_dir)?;
    let source: Arc<dyn NarSource> = Arc::new(source);
    let dir: StoreDir = state
        .store_dir
        .parse()
        .context(|| "the archive's store directory is not one".to_owned())?;
    let (roots, infos) = match listed {
        Some(all) if args.paths.is_empty() => {
            let infos = infos(&*source, &all).await?;
            (all, infos)
        }
        _ if args.paths.is_empty() => {
            return Err(Failure::new(format!("{} cannot be listed", args.from))
                .hint("name the paths to import; what they need comes along"));
        }
        _ => {
            let roots = hashes(&dir, &args.paths)?;
            let found = closure(&*source, &roots, PATHS_MAX).await;
            let infos = found
                .context(|| format!("{} has not everything that these paths need", args.from))?;
            (roots, infos)
        }
    };
    run(&opened, source, infos, roots, &args.store, args.to.json).await
}

async fn infos(source: &dyn NarSource, hashes: &[HashPart]) -> Outcome<Vec<PathInfo>> {
    let mut infos = Vec::with_capacity(hashes.len());
    for hash in hashes {
        let info = source.info(*hash).await.context(|| format!("cannot ask for {hash}"))?;
        infos.push(info.ok_or_else(|| Failure::new(format!("there is no path {hash}")))?);
    }
    Ok(infos)
}

/// The hash parts of paths given in full, by base name or by hash part.
pub(super) fn hashes(dir: &StoreDir, paths: &[String]) -> Outcome<Vec<HashPart>> {
    paths.iter().map(|text| hash_of(dir, text)).collect()
}

fn hash_of(dir: &StoreDir, text: &str) -> Outcome<HashPart> {
    if let Ok(hash) = text.parse::<HashPart>() {
        return Ok(hash);
    }
    let base = text.strip_prefix(dir.as_str()).map_or(text, |rest| rest.trim_start_matches('/'));
    let base = base.split('/').next().unwrap_or_default();
    let path = base.parse::<haulout_nix::StorePath>();
    path.map(|path| path.hash_part()).map_err(|error| {
        Failure::new(format!("{text:?} is not a store path"))
            .because(error)
            .hint(format!("for example {dir}/<32 characters>-hello-2.12"))
    })
}

async fn run(
    opened: &Opened,
    source: Arc<dyn NarSource>,
    infos: Vec<PathInfo>,
    roots: Vec<HashPart>,
    args: &StoreArgs,
    as_json: bool,
) -> Outcome<()> {
    let scratch = match &args.scratch {
        Some(dir) => dir.clone(),
        None => state_dir()?.join("publish"),
    };
    let sign = args.sign_key.as_deref().map(secret_key).transpose()?;
    let bar = progress::bar(progress::nar_bytes(&infos));
    let shown = bar.clone();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let options = Options {
        epochs: args.epochs,
        level: args.level,
        pack_bytes: TARGET_BYTES,
        scratch,
        sign,
        today: (since.as_secs() / 86_400) as u32,
        progress: Some(Box::new(move |progress: &Progress| {
            shown.set_length(progress.of_nar_bytes);
            shown.set_position(progress.nar_bytes);
        })),
    };
    let done = publish(
        Arc::clone(&opened.blobs),
        Arc::clone(&opened.registry),
        source,
        infos,
        roots,
        options,
    );
    let done = done.await;
    bar.finish_and_clear();
    let report = done.context(|| "not everything was published".to_owned()).map_err(|failure| {
        failure.hint("nothing of it is visible; the same command again goes on where it was")
    })?;
    print_report(&report, as_json);
    Ok(())
}

fn print_report(report: &Report, as_json: bool) {
    if as_json {
        let value = json!({
            "added": report.added, "signed": report.signed, "present": report.present,
            "resumed": report.resumed, "nar_bytes": report.nar_bytes, "packed_bytes": report.packed_bytes,
            "packs": report.packs, "merged_levels": report.merged, "lost": report.lost,
            "sequence": report.sequence,
        });
        println!("{value}");
        return;
    }
    println!(
        "{} paths added ({}, packed {}), {} got signatures, {} were there",
        report.added,
        report::bytes(report.nar_bytes),
        report::bytes(report.packed_bytes),
        report.signed,
        report.present
    );
    println!(
        "{} packs stored, {} levels merged; sequence {}",
        report.packs, report.merged, report.sequence
    );
    say_lost(report.lost);
}

fn secret_key(path: &Path) -> Outcome<SecretKey> {
    let reading = || format!("cannot read the key {}", path.display());
    let file = std::fs::File::open(path).context(reading)?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, KEY_BYTES_MAX), &mut text)
        .context(reading)?;
    text.trim().parse().context(|| format!("{} is not a Nix secret key", path.display()))
}

/// `archive merge`.
pub(super) async fn merge(args: &MergeArgs) -> Outcome<()> {
    let opened = open(&args.to.place.archive, Some(&args.to.wallet)).await?;
    let reader = opened.left().await?;
    let dir: StoreDir = reader
        .state()
        .store_dir
        .parse()
        .context(|| "the archive's store directory is not one".to_owned())?;
    let drop: HashSet<HashPart> = hashes(&dir, &args.drop)?.into_iter().collect();
    let count = args.levels.unwrap_or_else(|| reader.levels().len());
    let scratch: PathBuf = state_dir()?.join("publish");
    std::fs::create_dir_all(&scratch).context(|| format!("cannot make {}", scratch.display()))?;
    let merged =
        haulout_depot::merge::merge(&reader, &*opened.registry, count, drop, args.epochs, scratch)
            .await
            .context(|| "the levels were not merged".to_owned())?;
    if args.to.json {
        let value = serde_json::json!({
            "levels": merged.levels, "entries": merged.leaves, "lost": merged.lost, "sequence": merged.sequence,
        });
        println!("{value}");
        return Ok(());
    }
    println!(
        "{} levels became one of {} entries; sequence {}",
        merged.levels, merged.leaves, merged.sequence
    );
    say_lost(merged.lost);
    Ok(())
}

/// What nobody paid for any longer.
fn say_lost(paths: u64) {
    if paths > 0 {
        println!("{paths} paths left out: their packs are no longer stored");
    }
}

/// `archive beat`.
pub(super) async fn beat(args: &WriteArgs) -> Outcome<()> {
    let opened = open(&args.place.archive, Some(&args.wallet)).await?;
    let state =
        opened.registry.state().await.context(|| "cannot read the archive's state".to_owned())?;
    let beat = opened.registry.update(state.sequence, &Update::Beat).await;
    let sequence = beat.context(|| "the archive was not touched".to_owned())?;
    if args.json {
        println!("{}", serde_json::json!({ "sequence": sequence }));
    } else {
        println!("sequence {sequence}");
    }
    Ok(())
}

/// `archive fund`.
pub(super) async fn fund(args: &FundArgs) -> Outcome<()> {
    let opened = open(&args.to.place.archive, Some(&args.to.wallet)).await?;
    let reader = opened.left().await?;
    let funded = haulout_depot::fund::fund(&reader, &*opened.registry, args.epochs)
        .await
        .context(|| "not everything was paid for".to_owned())
        .map_err(|failure| failure.hint("the same command again pays for what is left"))?;
    if args.to.json {
        let value = serde_json::json!({
            "blobs": funded.blobs, "end_epoch": funded.end_epoch, "sequence": funded.sequence,
        });
        println!("{value}");
        return Ok(());
    }
    if funded.blobs == 0 {
        println!("nothing was published yet: there is nothing to pay for");
        return Ok(());
    }
    println!(
        "{} blobs are stored until epoch {}; sequence {}",
        funded.blobs, funded.end_epoch, funded.sequence
    );
    Ok(())
}
