//! The commands that need no network: blob ids, encoding, decoding.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use redstuff::bcs::Wire;
use redstuff::{
    Axis, BlobId, Metadata, MetadataWithId, Primary, Secondary, ShardCount, Sliver, SliverIndex,
    UnverifiedMetadata, UnverifiedSliver, decode as decode_slivers,
};
use serde::Serialize;

use super::args::{BlobIdArgs, DecodeArgs, EncodeArgs};
use super::files::{bar, is_stream, print_json, print_line, read, write};
use super::{blob_id as parse_blob_id, shards};
use crate::error::{Context, Failure, Outcome};

/// Files of more bytes than this are hashed piece by piece, within about as much memory.
const IN_MEMORY_MAX: u64 = 256 << 20;

/// What `--json` says of a blob.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    blob_id: BlobId,
    /// The blob id as a number, as it stands on chain.
    blob_id_decimal: String,
    root_hash: String,
    size: u64,
    shards: u16,
    symbol_size: u16,
    /// Bytes billed.
    encoded_length: u64,
    /// MiB begun, the unit of prices.
    storage_units: u64,
}

impl Description {
    pub(super) fn of(metadata: &Metadata) -> Outcome<Self> {
        let (n, size) = (metadata.shards(), metadata.unencoded_length());
        let too_large = || "the blob is too large".to_owned();
        Ok(Self {
            blob_id: *metadata.id(),
            blob_id_decimal: metadata.id().to_decimal(),
            root_hash: data_encoding::HEXLOWER.encode(metadata.root_hash().as_bytes()),
            size,
            shards: n.get(),
            symbol_size: metadata.symbol_size().get(),
            encoded_length: n.encoded_length(size).context(too_large)?,
            storage_units: n.storage_units(size).context(too_large)?,
        })
    }
}

/// `walrus blob-id`.
pub(super) fn blob_id(args: &BlobIdArgs) -> Outcome<()> {
    let n = shards(args.shards)?;
    let metadata = metadata_of(n, &args.file)?;
    match args.json {
        true => print_json(&Description::of(&metadata)?, None),
        false => print_line(&metadata.id().to_string()),
    }
}

fn metadata_of(n: ShardCount, path: &Path) -> Outcome<Metadata> {
    let encoding = || format!("cannot encode {}", path.display());
    let size = match std::fs::metadata(path) {
        Ok(found) if found.is_file() && !is_stream(path) => found.len(),
        _ => 0,
    };
    if size <= IN_MEMORY_MAX {
        let blob = read(path, n.max_blob_size(), "the file")?;
        return n.metadata(&blob).context(encoding);
    }
    let file = File::open(path).context(|| format!("cannot read {}", path.display()))?;
    let bar = bar(size, "hashing");
    let memory = usize::try_from(IN_MEMORY_MAX).unwrap_or(usize::MAX);
    let metadata = n.metadata_of_source(size, memory, |offset, buffer| {
        bar.inc(buffer.len() as u64);
        file.read_exact_at(buffer, offset)
    });
    bar.finish_and_clear();
    metadata.context(encoding)
}

/// `walrus encode`.
pub(super) fn encode(args: &EncodeArgs) -> Outcome<()> {
    let n = shards(args.shards)?;
    let blob = read(&args.file, n.max_blob_size(), "the file")?;
    let encoded = n.encode(blob).context(|| format!("cannot encode {}", args.file.display()))?;
    let metadata = encoded.metadata();
    std::fs::create_dir_all(&args.out)
        .context(|| format!("cannot create the directory {}", args.out.display()))?;
    put(&args.out, "metadata.bcs", &metadata.as_unverified().to_bcs())?;
    let all = n.slivers_length(metadata.unencoded_length());
    let bar = bar(all.unwrap_or(0), "writing slivers");
    for sliver in encoded.slivers::<Primary>() {
        put(&args.out, &format!("primary-{}.bcs", sliver.index()), &sliver.to_bcs())?;
        bar.inc(sliver.data().len() as u64);
    }
    for sliver in encoded.slivers::<Secondary>() {
        put(&args.out, &format!("secondary-{}.bcs", sliver.index()), &sliver.to_bcs())?;
        bar.inc(sliver.data().len() as u64);
    }
    bar.finish_and_clear();
    match args.json {
        true => print_json(&Description::of(metadata)?, None),
        false => print_line(&metadata.id().to_string()),
    }
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> Outcome<()> {
    let path = directory.join(name);
    std::fs::write(&path, bytes).context(|| format!("cannot write {}", path.display()))
}

/// What came of decoding.
#[derive(Debug, Serialize)]
struct Decoded {
    blob_id: BlobId,
    size: u64,
    /// `primary` or `secondary`.
    from: &'static str,
    slivers_used: usize,
    /// Files that hold no sliver of the blob, and why.
    ignored: Vec<Ignored>,
}

#[derive(Debug, Serialize)]
struct Ignored {
    file: String,
    reason: String,
}

/// The slivers among the files.
#[derive(Debug, Default)]
struct Found {
    primary: Vec<Sliver<Primary>>,
    secondary: Vec<Sliver<Secondary>>,
    ignored: Vec<Ignored>,
}

/// `walrus decode`.
pub(super) fn decode(args: &DecodeArgs) -> Outcome<()> {
    let n = shards(args.shards)?;
    let id = parse_blob_id(&args.blob_id)?;
    let metadata = read_metadata(n, &id, &args.metadata)?;
    let mut found = Found::default();
    for path in &args.slivers {
        if let Err(reason) = take(&metadata, path, &mut found)? {
            let file = path.display().to_string();
            eprintln!("warning: {file} is ignored: {reason}");
            found.ignored.push(Ignored { file, reason });
        }
    }
    let (from, used, blob) = decode_found(n, &metadata, &found, args)?;
    write(&args.out, &blob)?;
    if args.json {
        let size = blob.len() as u64;
        let ignored = found.ignored;
        let decoded = Decoded { blob_id: id, size, from, slivers_used: used, ignored };
        print_json(&decoded, Some(&args.out))?;
    }
    Ok(())
}

fn decode_found(
    n: ShardCount,
    metadata: &Metadata,
    found: &Found,
    args: &DecodeArgs,
) -> Outcome<(&'static str, usize, Vec<u8>)> {
    // Primary slivers may come without arithmetic.
    let (enough_primary, enough_secondary) =
        (distinct(&found.primary) >= n.rows(), distinct(&found.secondary) >= n.columns());
    let decoded = if enough_primary {
        let blob = decode_slivers(metadata, &found.primary, args.check.into());
        blob.map(|blob| ("primary", n.rows(), blob))
    } else if enough_secondary {
        let blob = decode_slivers(metadata, &found.secondary, args.check.into());
        blob.map(|blob| ("secondary", n.columns(), blob))
    } else {
        return Err(Failure::new(format!(
            "{} primary and {} secondary slivers of the blob are too few",
            distinct(&found.primary),
            distinct(&found.secondary)
        ))
        .hint(format!(
            "any {} primary or any {} secondary slivers are needed",
            n.rows(),
            n.columns()
        )));
    };
    decoded.map_err(|error| {
        Failure::new("the slivers do not make a blob")
            .because(error)
            .hint("whoever stored it encoded it wrongly; --check says how strict to be")
    })
}

fn distinct<A: Axis>(slivers: &[Sliver<A>]) -> usize {
    let mut indices: Vec<_> = slivers.iter().map(|sliver| sliver.index().get()).collect();
    indices.sort_unstable();
    indices.dedup();
    indices.len()
}

/// Metadata in the form of either direction: with the blob id (as nodes answer) or without (as
/// they are sent).
fn read_metadata(n: ShardCount, id: &BlobId, path: &Path) -> Outcome<Metadata> {
    // 66 bytes for each pair, and less than 100 around them.
    let bytes = read(path, n.as_usize() as u64 * 66 + 100, "the metadata")?;
    let not = || format!("{} is not the metadata of blob {id}", path.display());
    let parsed = match MetadataWithId::from_bcs(&bytes) {
        Ok(with_id) => return with_id.verify(n, id).context(not),
        Err(_) => UnverifiedMetadata::from_bcs(&bytes),
    };
    let unverified = parsed.context(|| format!("{} is not metadata", path.display()))?;
    unverified.verify(n, id).context(not)
}

/// Adds the sliver in a file. The inner error says why it is not one of this blob.
fn take(metadata: &Metadata, path: &Path, found: &mut Found) -> Outcome<Result<(), String>> {
    let size = metadata.sliver_len::<Primary>().max(metadata.sliver_len::<Secondary>());
    // Length, symbol size and index around the symbols.
    let bytes = match read(path, size as u64 + 9, "the sliver") {
        Ok(bytes) => bytes,
        // Too large is a property of the content; anything else is a mistake in the command.
        Err(failure) if std::error::Error::source(&failure).is_none() => {
            return Ok(Err(failure.to_string()));
        }
        Err(failure) => return Err(failure),
    };
    let bytes = bytes.into();
    // The axis is not in the file; the lengths differ.
    let primary = match UnverifiedSliver::<Primary>::from_shared_bcs(&bytes) {
        Ok(sliver) => sliver,
        Err(error) => return Ok(Err(format!("not a sliver: {error}"))),
    };
    if primary.data.len() != metadata.sliver_len::<Secondary>() {
        return Ok(add(primary, metadata, &mut found.primary));
    }
    let index = SliverIndex::new(primary.index.get());
    let secondary = UnverifiedSliver::<Secondary> {
        data: primary.data,
        symbol_size: primary.symbol_size,
        index,
    };
    Ok(add(secondary, metadata, &mut found.secondary))
}

fn add<A: Axis>(
    sliver: UnverifiedSliver<A>,
    metadata: &Metadata,
    to: &mut Vec<Sliver<A>>,
) -> Result<(), String> {
    let sliver = sliver.verify(metadata).map_err(|error| error.to_string())?;
    to.push(sliver);
    Ok(())
}

/// What a worker thread could not do.
pub(super) fn worker(error: tokio::task::JoinError) -> Failure {
    Failure::new("a worker thread failed").because(io::Error::other(error))
}
