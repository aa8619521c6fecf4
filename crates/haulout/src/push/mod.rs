//! `haulout push`: writes store paths as a standard binary cache.

mod closure;
pub(crate) mod engine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use haulout_nix::db::{Database, StoreLocation};
use haulout_nix::{HashPart, SecretKey};
use haulout_upstream::CacheUrl;
use haulout_upstream::target::{Packing, ParsePackingError, Target};

use crate::cli::PushArgs;
use crate::control::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::{progress, report};
use engine::{Engine, Event, Summary};

/// Runs `haulout push`; exit code 1 when a path could not be pushed.
pub(crate) fn run(args: &PushArgs) -> Outcome<ExitCode> {
    let location =
        args.store_root.as_deref().map_or_else(StoreLocation::system, StoreLocation::chroot);
    let database = Database::open(&location)
        .context(|| format!("cannot read the store database {}", location.db.display()))?;
    let roots: Vec<HashPart> =
        args.paths.iter().map(|path| hash_of(&location, path)).collect::<Outcome<_>>()?;
    let infos = closure::ordered(&database, &roots, !args.no_closure)?;
    let target = open_target(&args.to, args.compression.as_deref(), &location)?;
    let keys = args.sign.iter().map(|file| read_key(file)).collect::<Outcome<Vec<_>>>()?;
    let unsigned =
        infos.iter().filter(|info| info.signatures.is_empty() && info.ca.is_none()).count();
    if unsigned > 0 && keys.is_empty() {
        eprintln!(
            "warning: {unsigned} of {} paths carry no signature, so other machines will not take them\n\
             hint: sign them with --sign KEYFILE",
            infos.len()
        );
    }
    let bar = progress::bar(progress::nar_bytes(&infos));
    let show = bar.clone();
    let (json, quiet) = (args.json, args.quiet);
    let engine = Engine {
        location,
        target: Arc::new(target),
        keys,
        jobs: args.jobs.unwrap_or_else(engine::jobs),
    };
    let summary = block_on(engine.push(infos, move |event| {
        let (Event::Done { nar_size, .. } | Event::Failed { nar_size, .. }) = event;
        show.inc(*nar_size);
        show.suspend(|| print(event, json, quiet));
    }));
    bar.finish_and_clear();
    let summary = summary?;
    eprintln!("{}", sentence(&summary, &args.to));
    Ok(ExitCode::from(u8::from(summary.failed > 0)))
}

/// Opens the target that a URL names, with the compression asked for.
pub(crate) fn open_target(
    to: &str,
    compression: Option<&str>,
    location: &StoreLocation,
) -> Outcome<Target> {
    let url: CacheUrl = to.parse().map_err(|error: haulout_upstream::AddressError| {
        Failure::new(format!("{to:?} cannot be pushed to"))
            .because(error)
            .hint("for example file:///srv/cache or s3://my-bucket?region=eu-west-1")
    })?;
    let wanted = compression.or(url.compression.as_deref()).unwrap_or("zstd");
    let packing: Packing = wanted.parse().map_err(|error: ParsePackingError| {
        Failure::new(format!("compression {wanted:?}"))
            .because(error)
            .hint("zstd is fast to write and to read, xz the smallest, none for file systems that compress")
    })?;
    Target::open(&url, location.store_dir.clone(), packing).map_err(|error| {
        Failure::new(format!("cannot push to {url}"))
            .because(error)
            .hint("for s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile: s3://bucket?profile=NAME")
    })
}

/// Reads a secret key file of Nix.
pub(crate) fn read_key(file: &Path) -> Outcome<SecretKey> {
    let text = std::fs::read_to_string(file)
        .context(|| format!("cannot read the signing key {}", file.display()))?;
    text.trim().parse().map_err(|error: haulout_nix::keys::KeyError| {
        Failure::new(format!("{} is not a signing key", file.display()))
            .because(error)
            .hint("`nix-store --generate-binary-cache-key NAME secret public` makes one")
    })
}

/// The hash part of a path given in full, by base name, or as a link such as `./result`.
fn hash_of(location: &StoreLocation, text: &str) -> Outcome<HashPart> {
    let named = |path: &Path| -> Option<HashPart> {
        let inside = path
            .strip_prefix(location.store_dir.as_str())
            .or_else(|_| path.strip_prefix(&location.real_store));
        let base = inside.unwrap_or(path).components().next()?.as_os_str().to_str()?;
        Some(base.parse::<haulout_nix::StorePath>().ok()?.hash_part())
    };
    let resolved = || -> Option<PathBuf> {
        let target = std::fs::read_link(text).ok()?;
        // A link to a link: profiles are.
        Some(std::fs::canonicalize(text).unwrap_or(target))
    };
    named(Path::new(text)).or_else(|| named(&resolved()?)).ok_or_else(|| {
        Failure::new(format!("{text:?} is not a store path, nor a link to one")).hint(format!(
            "for example {}/<32 characters>-hello-2.12, or ./result",
            location.store_dir
        ))
    })
}

fn print(event: &Event, json: bool, quiet: bool) {
    match event {
        _ if json => println!("{}", serde_json::to_string(event).unwrap_or_default()),
        Event::Failed { path, why, .. } => eprintln!("failed {path}: {why}"),
        Event::Done { path, file_size: Some(size), .. } if !quiet => {
            println!("pushed {path} ({})", report::bytes(*size));
        }
        Event::Done { .. } => {}
    }
}

fn sentence(summary: &Summary, to: &str) -> String {
    format!(
        "{} paths pushed to {to} ({} as NARs, {} written), {} were there, {} failed",
        summary.pushed,
        report::bytes(summary.nar_bytes),
        report::bytes(summary.file_bytes),
        summary.there,
        summary.failed
    )
}
