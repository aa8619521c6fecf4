//! `walrus quilt`: many small files in one blob.

use std::collections::BTreeMap;
use std::path::Path;

use haulout_walrus::{QuiltReadError, ReadOptions};
use redstuff::quilt::{Quilt, QuiltFile, QuiltIndex, QuiltPatchId, QuiltView, Tags};
use redstuff::{BlobId, ShardCount};
use serde::Serialize;

use super::args::{QuiltCatArgs, QuiltCreateArgs, QuiltLsArgs, QuiltPlace};
use super::blob::explain;
use super::files::{print_json, print_line, read, write};
use super::network::Network;
use super::{blob_id, shards};
use crate::error::{Context, Failure, Outcome};
use crate::report::Table;

/// A file of a quilt, for people and programs.
#[derive(Debug, Serialize)]
struct Entry {
    identifier: String,
    patch_id: String,
    /// The first column and the one after the last.
    columns: (u16, u16),
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: Tags,
}

/// A quilt.
#[derive(Debug, Serialize)]
struct Listing {
    blob_id: BlobId,
    files: Vec<Entry>,
}

impl Listing {
    fn of(blob_id: BlobId, index: &QuiltIndex) -> Self {
        let files = index.patches().iter().map(|patch| Entry {
            identifier: patch.identifier.clone(),
            patch_id: QuiltPatchId::new(blob_id, &patch.columns).to_string(),
            columns: (patch.columns.start, patch.columns.end),
            tags: patch.tags.clone(),
        });
        Self { blob_id, files: files.collect() }
    }

    fn print(&self) -> Outcome<()> {
        let mut table = Table::new(&["patch id", "columns", "file", "tags"], &[1]);
        for file in &self.files {
            let tags = file.tags.iter().map(|(key, value)| format!("{key}={value}"));
            table.row([
                file.patch_id.clone(),
                (file.columns.1 - file.columns.0).to_string(),
                printable(&file.identifier),
                printable(&tags.collect::<Vec<_>>().join(" ")),
            ]);
        }
        print_line(table.render().trim_end())
    }
}

/// Identifiers may hold anything, a terminal's control characters among it.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// `walrus quilt create`.
pub(super) fn create(args: &QuiltCreateArgs) -> Outcome<()> {
    let n = shards(args.shards)?;
    let mut files = Vec::new();
    for text in &args.files {
        let (identifier, path) = named(text)?;
        let data = read(Path::new(path), u32::MAX.into(), "the file")?;
        files.push(QuiltFile { identifier, tags: Tags::new(), data });
    }
    for text in &args.tags {
        let (identifier, key, value) = tag(text)?;
        let file = files.iter_mut().find(|file| file.identifier == identifier);
        let file = file.ok_or_else(|| {
            Failure::new(format!("--tag {text}: there is no file {identifier:?} in the quilt"))
        })?;
        file.tags.insert(key.to_owned(), value.to_owned());
    }
    let quilt = Quilt::new(n, files).map_err(|error| {
        Failure::new("the files do not make a quilt")
            .because(error)
            .hint(format!("a quilt of {n} shards holds up to {} files", n.columns() - 1))
    })?;
    let id = n.blob_id(quilt.blob()).context(|| "cannot encode the quilt".to_owned())?;
    write(&args.out, quilt.blob())?;
    let listing = Listing::of(id, quilt.index());
    match args.json {
        true => print_json(&listing, Some(&args.out)),
        false if super::files::is_stream(&args.out) => {
            eprintln!("{id}");
            Ok(())
        }
        false => {
            print_line(&id.to_string())?;
            listing.print()
        }
    }
}

/// `IDENTIFIER=PATH`, or a path whose file name is the identifier.
fn named(text: &str) -> Outcome<(String, &str)> {
    if let Some((identifier, path)) = text.split_once('=') {
        return Ok((identifier.to_owned(), path));
    }
    let name = Path::new(text).file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Failure::new(format!("{text:?} has no file name that could be its identifier"))
            .hint("give it one: IDENTIFIER=PATH")
    })?;
    Ok((name.to_owned(), text))
}

/// `IDENTIFIER:KEY=VALUE`.
fn tag(text: &str) -> Outcome<(&str, &str, &str)> {
    let split = text.split_once('=').and_then(|(left, value)| {
        left.rsplit_once(':').map(|(identifier, key)| (identifier, key, value))
    });
    split
        .filter(|(_, key, _)| !key.is_empty())
        .ok_or_else(|| Failure::new(format!("--tag {text}: not of the form IDENTIFIER:KEY=VALUE")))
}

/// A quilt that is a file.
fn local(place: &QuiltPlace) -> Outcome<(ShardCount, Vec<u8>)> {
    let n = shards(place.shards)?;
    let blob = read(Path::new(&place.quilt), n.max_blob_size(), "the quilt")?;
    Ok((n, blob))
}

fn not_a_quilt(place: &QuiltPlace) -> impl FnOnce(QuiltReadError) -> Failure {
    let quilt = place.quilt.clone();
    let hint = match place.file {
        true => "is it one, and made for so many --shards?",
        false => "`haulout walrus read` reads other blobs",
    };
    move |error| match error {
        QuiltReadError::Read(error) => explain(error),
        QuiltReadError::NoFile(name) => no_file(&name, &quilt),
        QuiltReadError::Quilt(error) => {
            Failure::new(format!("{quilt} is not a quilt")).because(error).hint(hint)
        }
    }
}

fn no_file(name: &str, quilt: &str) -> Failure {
    Failure::new(format!("there is no file {name:?} in the quilt"))
        .hint(format!("`haulout walrus quilt ls {quilt}` lists them"))
}

/// `walrus quilt ls`.
pub(super) async fn ls(args: &QuiltLsArgs, network: &str) -> Outcome<()> {
    let place = &args.place;
    let listing = if place.file {
        let (n, blob) = local(place)?;
        let view = QuiltView::of_blob(n, &blob);
        let index = view.and_then(|view| view.index());
        let index = index.map_err(|error| not_a_quilt(place)(error.into()))?;
        let id = n.blob_id(&blob).context(|| "cannot encode the quilt".to_owned())?;
        Listing::of(id, &index)
    } else {
        let id = blob_id(&place.quilt)?;
        let network = Network::load(network)?;
        let read = network.client.quilt_index(&id, &ReadOptions::default()).await;
        let (index, _) = read.map_err(not_a_quilt(place))?;
        Listing::of(id, &index)
    };
    match args.json {
        true => print_json(&listing, None),
        false => listing.print(),
    }
}

/// `walrus quilt cat`.
pub(super) async fn cat(args: &QuiltCatArgs, network: &str) -> Outcome<()> {
    let place = &args.place;
    let needed = || {
        Failure::new("which file of the quilt?")
            .hint("`haulout walrus quilt cat QUILT IDENTIFIER`, or a patch id alone")
    };
    let file = if place.file {
        let identifier = args.identifier.as_deref().ok_or_else(needed)?;
        let (n, blob) = local(place)?;
        let fail = |error: redstuff::quilt::QuiltError| not_a_quilt(place)(error.into());
        let view = QuiltView::of_blob(n, &blob).map_err(fail)?;
        let index = view.index().map_err(fail)?;
        let patch = index.find(identifier).ok_or_else(|| no_file(identifier, &place.quilt))?;
        view.file(patch).map_err(fail)?
    } else {
        let patch = place.quilt.parse::<QuiltPatchId>().ok();
        let options = ReadOptions::default();
        let read = match (patch, &args.identifier) {
            (Some(patch), None) => {
                let network = Network::load(network)?;
                network.client.quilt_patch(&patch, &options).await
            }
            (Some(_), Some(_)) => {
                return Err(Failure::new("a patch id names the file already")
                    .hint("leave the identifier out"));
            }
            (None, identifier) => {
                let id = blob_id(&place.quilt)?;
                let identifier = identifier.as_deref().ok_or_else(needed)?;
                let network = Network::load(network)?;
                network.client.quilt_file(&id, identifier, &options).await
            }
        };
        read.map_err(not_a_quilt(place))?.0
    };
    write(&args.out, &file.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_tags_are_taken_apart() {
        assert_eq!(named("a/b.txt").unwrap(), ("b.txt".to_owned(), "a/b.txt"));
        assert_eq!(named("x=a/b=c").unwrap(), ("x".to_owned(), "a/b=c"));
        assert!(named("..").is_err());
        assert_eq!(tag("a:b:k=v=w").unwrap(), ("a:b", "k", "v=w"));
        for bad in ["", "a", "a=b", "a:=v", "a:k"] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }
}
