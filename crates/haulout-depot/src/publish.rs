//! Publishing: paths become packs, packs an index, the index a level of the archive.
//!
//! Nothing is visible before the last step, the update of the registry; and everything before it may be
//! done twice without being paid twice.

use crate::{
    Blobs, Certify, DepotError, Kind, NarSource, Reader, Registry, Standing, State, Update,
    journal::Journal,
    lasting::{self, Packs},
    merge::{Entries, levels_to_merge},
    segment,
};
use haulout_archive::{
    Compression, Content, Entry, Extent, NarPlace,
    entry::Path as ArchivePath,
    merge::{Merge, PackUnion},
    pack::{self, NarCompressor, Planner, packing_order},
    segment::BlobRecord,
};
use haulout_nix::{HashPart, PathInfo, SecretKey, StoreDir};
use redstuff::BlobId;
use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::runtime::Handle;

/// Times that an update is tried anew because somebody else was faster.
const CONFLICTS_MAX: u32 = 5;

/// Told how far it is.
pub type OnProgress = Box<dyn Fn(&Progress) + Send>;

/// How to publish.
pub struct Options {
    /// For how many epochs everything is stored, the current one included.
    pub epochs: u32,
    /// zstd level.
    pub level: i32,
    /// A pack is closed when it has so many bytes.
    pub pack_bytes: u64,
    /// Where the journal and packs in the making are kept; packs need room for one of the largest.
    pub scratch: PathBuf,
    /// Signs every path that this key has not signed yet.
    pub sign: Option<SecretKey>,
    /// Today, in days since 1970: written as the time when the paths were last asked for.
    pub today: u32,
    /// Called after each path.
    pub progress: Option<OnProgress>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("epochs", &self.epochs)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Paths packed.
    pub paths: usize,
    /// Of so many.
    pub of_paths: usize,
    /// Bytes of their NARs.
    pub nar_bytes: u64,
    /// Of so many.
    pub of_nar_bytes: u64,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Paths whose NARs are new in the archive.
    pub added: usize,
    /// Paths that were there and got more signatures.
    pub signed: usize,
    /// Paths that were there as they are.
    pub present: usize,
    /// Of the added ones, how many an earlier, interrupted run had stored.
    pub resumed: usize,
    /// Bytes of the added NARs.
    pub nar_bytes: u64,
    /// Bytes of them in packs.
    pub packed_bytes: u64,
    /// Packs stored by this run.
    pub packs: usize,
    /// Older levels that were merged with the new one.
    pub merged: usize,
    /// Paths of them that were left out because a pack of theirs is no longer stored.
    pub lost: u64,
    /// The archive's sequence now.
    pub sequence: u64,
}

/// Publishes paths. `roots` are those that were asked for; they decide the order in the packs.
///
/// # Errors
/// When a path's NAR is not what its info says, a limit is met, or the archive cannot be written. What
/// was stored until then is not lost: publishing again goes on from there.
pub async fn publish(
    blobs: Arc<dyn Blobs>,
    registry: Arc<dyn Registry>,
    source: Arc<dyn NarSource>,
    infos: Vec<PathInfo>,
    roots: Vec<HashPart>,
    options: Options,
) -> Result<Report, DepotError> {
    let handle = Handle::current();
    let work = move || {
        Run { handle, blobs, registry, source, options, report: Report::default() }
            .all(infos, &roots)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DepotError::new(Kind::Local, "publishing ended early").because(error))?
}

struct Run {
    handle: Handle,
    blobs: Arc<dyn Blobs>,
    registry: Arc<dyn Registry>,
    source: Arc<dyn NarSource>,
    options: Options,
    report: Report,
}

/// What is to be done with the given paths.
#[derive(Default)]
struct Plan {
    add: Vec<PathInfo>,
    /// Entries that change without their NAR, with the packs they point to.
    change: Vec<(Entry, Vec<BlobRecord>)>,
}

impl Run {
    fn all(mut self, infos: Vec<PathInfo>, roots: &[HashPart]) -> Result<Report, DepotError> {
        fs::create_dir_all(&self.options.scratch).map_err(|error| {
            DepotError::local(format_args!("make {}", self.options.scratch.display()), error)
        })?;
        let state = self.handle.block_on(self.registry.state())?;
        if state.frozen {
            let message = "the archive is frozen: nothing can be published to it any more";
            return Err(DepotError::new(Kind::Refused, message));
        }
        let epoch = self.handle.block_on(self.registry.epoch())?;
        let mut journal = Journal::open(&self.options.scratch, &state.id, epoch)?;
        let left = Reader::open_left(Arc::clone(&self.blobs), state.clone(), epoch);
        let reader = self.handle.block_on(left)?;
        let infos = self.signed(infos, &state)?;
        let plan = self.plan(&reader, infos, epoch)?;
        self.report.sequence = state.sequence;
        if plan.add.is_empty() && plan.change.is_empty() {
            journal.finish()?;
            return Ok(self.report);
        }
        let wanted = self.pack(&plan.add, roots, &mut journal)?;
        self.update(reader, &journal, &wanted, &plan.change, epoch)?;
        journal.finish()?;
        Ok(self.report)
    }

    fn signed(&self, mut infos: Vec<PathInfo>, state: &State) -> Result<Vec<PathInfo>, DepotError> {
        let dir: StoreDir = state.store_dir.parse().map_err(|error| {
            DepotError::new(Kind::Refused, format!("{} is not a store directory", state.store_dir))
                .because(error)
        })?;
        for info in &mut infos {
            if let Some(key) = &self.options.sign {
                info.signatures.push(info.sign(&dir, key));
            }
            info.normalise();
        }
        Ok(infos)
    }

    fn plan(
        &mut self,
        reader: &Reader,
        infos: Vec<PathInfo>,
        epoch: u32,
    ) -> Result<Plan, DepotError> {
        let mut plan = Plan::default();
        let mut standing = Standings { blobs: &*self.blobs, epoch, known: HashMap::new() };
        for mut info in infos {
            let key = info.path.hash_part();
            let Some(found) = self.handle.block_on(reader.find(&key))? else {
                plan.add.push(info);
                continue;
            };
            let known = &found.path.info;
            if (known.nar_hash, known.nar_size) != (info.nar_hash, info.nar_size) {
                plan.add.push(info);
                continue;
            }
            let mut packs = Vec::new();
            for extent in &found.path.nar.extents {
                packs.push(self.handle.block_on(reader.pack(found.level, extent.pack))?);
            }
            if !self.handle.block_on(standing.all(&packs))? {
                plan.add.push(info);
                continue;
            }
            // Signatures only ever come to it.
            let mut signatures = known.signatures.clone();
            signatures.append(&mut info.signatures);
            info.signatures = signatures;
            info.normalise();
            if info.signatures == known.signatures {
                self.report.present += 1;
                continue;
            }
            let mut nar = found.path.nar.clone();
            for (number, extent) in (0u32..).zip(&mut nar.extents) {
                extent.pack = number;
            }
            self.report.signed += 1;
            let path = ArchivePath { info, nar, last_asked: self.options.today };
            plan.change.push((Entry::path(path), packs));
        }
        Ok(plan)
    }

    /// Packs and stores what the journal has not got yet; gives the keys of all that were wanted.
    fn pack(
        &mut self,
        add: &[PathInfo],
        roots: &[HashPart],
        journal: &mut Journal,
    ) -> Result<Vec<HashPart>, DepotError> {
        let max = self.handle.block_on(self.blobs.blob_bytes_max())?.min(pack::PACK_BYTES_MAX);
        let mut packer = Packer::new(&self.options, max, journal.packs().len());
        let mut progress = Progress {
            of_paths: add.len(),
            of_nar_bytes: add.iter().map(|info| info.nar_size).sum(),
            ..Progress::default()
        };
        for at in packing_order(add, roots) {
            let Some(info) = add.get(at) else { continue };
            let key = info.path.hash_part();
            let journalled = journal.entries().get(&key).and_then(Entry::as_path);
            if let Some(path) = journalled.filter(|path| path.info == *info) {
                self.report.resumed += 1;
                self.report.packed_bytes += path.nar.stored_len();
            } else {
                let nar = packer.compress(&self.handle, &*self.source, info)?;
                self.report.packed_bytes += nar.length;
                let path = |extents| ArchivePath {
                    info: info.clone(),
                    nar: NarPlace { root: nar.root, compression: Compression::Zstd, extents },
                    last_asked: self.options.today,
                };
                let entry = packer.append(&nar, |extents| Entry::path(path(extents)))?;
                for closed in packer.closed() {
                    self.store(closed?, journal)?;
                }
                packer.pending.push(entry);
            }
            self.report.added += 1;
            self.report.nar_bytes += info.nar_size;
            progress.paths += 1;
            progress.nar_bytes += info.nar_size;
            if let Some(report) = &self.options.progress {
                report(&progress);
            }
        }
        if let Some(last) = packer.finish()? {
            self.store(last, journal)?;
        }
        Ok(add.iter().map(|info| info.path.hash_part()).collect())
    }

    fn store(&mut self, pack: ClosedPack, journal: &mut Journal) -> Result<(), DepotError> {
        let stored = self.handle.block_on(self.blobs.store(
            &pack.file,
            self.options.epochs,
            Certify::Now,
        ))?;
        let record = BlobRecord {
            blob_id: stored.blob.0,
            object: stored.object,
            size: pack.size,
            end_epoch: stored.end_epoch,
        };
        journal.record(record, pack.entries)?;
        self.report.packs += 1;
        // The journal knows it now; a file that stays behind is overwritten by the next run.
        let _ = fs::remove_file(&pack.file);
        Ok(())
    }

    /// Makes the new level, merged with older ones where that is due, and puts it into the archive.
    fn update(
        &mut self,
        mut reader: Reader,
        journal: &Journal,
        wanted: &[HashPart],
        change: &[(Entry, Vec<BlobRecord>)],
        epoch: u32,
    ) -> Result<(), DepotError> {
        for _ in 0..CONFLICTS_MAX {
            match self.try_update(&reader, journal, wanted, change, epoch) {
                Err(error) if error.kind == Kind::Conflict => {
                    let state = self.handle.block_on(self.registry.state())?;
                    reader = self.handle.block_on(reader.advance(state))?;
                }
                other => return other,
            }
        }
        Err(DepotError::new(
            Kind::Conflict,
            "others publish to this archive all the time; try again",
        ))
    }

    fn try_update(
        &mut self,
        reader: &Reader,
        journal: &Journal,
        wanted: &[HashPart],
        change: &[(Entry, Vec<BlobRecord>)],
        epoch: u32,
    ) -> Result<(), DepotError> {
        // The delta, and the table its entries point into.
        let mut table: Vec<BlobRecord> = journal.packs().to_vec();
        let mut delta: Vec<Entry> =
            wanted.iter().filter_map(|key| journal.entries().get(key)).cloned().collect();
        for (entry, packs) in change {
            let mut entry = entry.clone();
            if let Content::Path(path) = &mut entry.content {
                path.nar.extents.iter_mut().for_each(|extent| extent.pack += table.len() as u32);
            }
            table.extend(packs);
            delta.push(entry);
        }
        delta.sort_by_key(|entry| entry.key);
        delta.dedup_by_key(|entry| entry.key);

        let sizes: Vec<u64> = reader.levels().iter().map(|level| level.record().leaves).collect();
        let count =
            levels_to_merge(&sizes, delta.len() as u64).max(lasting::ended(reader.levels(), epoch));
        let merged = reader.levels().get(..count).unwrap_or_default();
        let mut tables = vec![table];
        for level in merged {
            tables.push(self.handle.block_on(level.packs(&*self.blobs))?);
        }
        let about =
            delta.len() as u64 + merged.iter().map(|level| level.record().leaves).sum::<u64>();
        let start = HashPart::from_bytes([0; 20]);
        let mut levels: Vec<Box<dyn Iterator<Item = Result<Entry, DepotError>>>> =
            vec![Box::new(delta.into_iter().map(Ok))];
        for level in merged {
            levels.push(Box::new(Entries::new(&self.handle, &self.blobs, level, start)));
        }
        let packs = self.handle.block_on(Packs::now(&*self.blobs, tables, epoch))?;
        let union = RefCell::new(PackUnion::new(packs.tables().to_vec()));
        let (all, mut lost) = (count == reader.levels().len(), 0);
        let entries = Merge::new(levels, all).filter_map(|item| {
            let adopted = item.and_then(|(from, mut entry)| {
                if !packs.last(from, &entry) {
                    lost += 1;
                    let hidden = Entry { key: entry.key, content: Content::Tombstone };
                    return Ok((!all).then_some(hidden));
                }
                let adopted = union.borrow_mut().adopt(from, &mut entry);
                adopted
                    .map_err(|error| DepotError::corrupt("an index entry", error))
                    .map(|()| Some(entry))
            });
            adopted.transpose()
        });
        let level = segment::write_and_store(
            &self.handle,
            &*self.blobs,
            &self.options.scratch,
            self.options.epochs,
            about,
            entries,
            || union.take().into_table(),
        )?;
        let level =
            level.ok_or_else(|| DepotError::new(Kind::Refused, "there is nothing to publish"))?;
        let update = Update::Level { level, keep: reader.positions(count), place: 0 };
        self.report.sequence =
            self.handle.block_on(self.registry.update(reader.state().sequence, &update))?;
        (self.report.merged, self.report.lost) = (count, lost);
        Ok(())
    }
}

/// Which packs are still stored, each asked about once.
struct Standings<'a> {
    blobs: &'a dyn Blobs,
    epoch: u32,
    known: HashMap<[u8; 32], bool>,
}

impl Standings<'_> {
    async fn all(&mut self, packs: &[BlobRecord]) -> Result<bool, DepotError> {
        for pack in packs {
            let stored = match self.known.get(&pack.blob_id) {
                Some(known) => *known,
                None => match self.blobs.standing(BlobId(pack.blob_id), pack.object).await? {
                    Standing::Until(_) => true,
                    Standing::Gone => false,
                    Standing::Unknown => pack.end_epoch > self.epoch,
                },
            };
            self.known.insert(pack.blob_id, stored);
            if !stored {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A pack that is complete, in a file.
struct ClosedPack {
    file: PathBuf,
    size: u64,
    entries: Vec<Entry>,
}

/// A compressed NAR in a temporary file.
struct Spooled {
    file: File,
    length: u64,
    root: [u8; 32],
}

/// Puts NARs into pack files.
struct Packer {
    scratch: PathBuf,
    level: i32,
    planner: Planner,
    /// What is added to the planner's pack numbers: packs of earlier runs come first.
    base: u32,
    current: Option<Open>,
    full: Vec<Open>,
    /// Entries whose last byte is in the current pack.
    pending: Vec<Entry>,
}

struct Open {
    number: u32,
    path: PathBuf,
    out: BufWriter<File>,
    size: u64,
    entries: Vec<Entry>,
}

impl Packer {
    fn new(options: &Options, max: u64, base: usize) -> Self {
        Self {
            scratch: options.scratch.clone(),
            level: options.level,
            planner: Planner::new(options.pack_bytes, max),
            base: base as u32,
            current: None,
            full: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Compresses a NAR and checks that it is the one that its info promises.
    fn compress(
        &self,
        handle: &Handle,
        source: &dyn NarSource,
        info: &PathInfo,
    ) -> Result<Spooled, DepotError> {
        let spool = || tempfile::tempfile_in(&self.scratch);
        let packing = |error| DepotError::local(format_args!("pack {}", info.path), error);
        let out = BufWriter::with_capacity(1 << 20, spool().map_err(packing)?);
        let mut compressor = NarCompressor::new(out, info.nar_size, self.level).map_err(packing)?;
        handle.block_on(source.dump(info, &mut compressor))?;
        let changed = || {
            let message = format!("the content of {} is not what its hash says", info.path);
            DepotError::new(Kind::Corrupt, message)
        };
        let (compressed, out) = compressor.finish().map_err(|error| changed().because(error))?;
        if (compressed.digest.hash, compressed.digest.size) != (info.nar_hash, info.nar_size) {
            return Err(changed());
        }
        let mut file = out.into_inner().map_err(|error| packing(error.into_error()))?;
        file.rewind().map_err(packing)?;
        Ok(Spooled { file, length: compressed.length, root: compressed.root })
    }

    /// Appends a NAR to the pack, or packs, where it belongs.
    fn append(
        &mut self,
        nar: &Spooled,
        entry: impl FnOnce(Vec<Extent>) -> Entry,
    ) -> Result<Entry, DepotError> {
        let writing = |error| DepotError::local("write a pack", error);
        let mut extents = self.planner.place(nar.length).map_err(|error| {
            DepotError::new(Kind::Refused, "a NAR cannot be packed").because(error)
        })?;
        let mut input = &nar.file;
        for extent in &mut extents {
            extent.pack += self.base;
            if self.current.as_ref().is_none_or(|open| open.number != extent.pack) {
                self.turn(extent.pack)?;
            }
            if let Some(open) = &mut self.current {
                let copied =
                    io::copy(&mut io::Read::take(&mut input, extent.length), &mut open.out)
                        .map_err(writing)?;
                if copied != extent.length {
                    return Err(writing(io::ErrorKind::UnexpectedEof.into()));
                }
                open.size += copied;
            }
        }
        Ok(entry(extents))
    }

    /// Closes the current pack and opens the next.
    fn turn(&mut self, number: u32) -> Result<(), DepotError> {
        self.shelve();
        let path = self.scratch.join(format!("pack-{number}.part"));
        let file = File::create(&path)
            .map_err(|error| DepotError::local(format_args!("make {}", path.display()), error))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        self.current = Some(Open { number, path, out, size: 0, entries: Vec::new() });
        Ok(())
    }

    fn shelve(&mut self) {
        if let Some(mut open) = self.current.take() {
            open.entries = std::mem::take(&mut self.pending);
            self.full.push(open);
        }
    }

    /// The packs that were completed since the last call.
    fn closed(&mut self) -> Vec<Result<ClosedPack, DepotError>> {
        self.full.drain(..).map(close).collect()
    }

    /// The last pack.
    fn finish(&mut self) -> Result<Option<ClosedPack>, DepotError> {
        self.shelve();
        self.full.pop().map(close).transpose()
    }
}

fn close(mut open: Open) -> Result<ClosedPack, DepotError> {
    open.out.flush().map_err(|error| DepotError::local("write a pack", error))?;
    Ok(ClosedPack { file: open.path, size: open.size, entries: open.entries })
}

/// The paths of a local Nix store.
#[derive(Debug)]
pub struct StoreSource {
    location: haulout_nix::db::StoreLocation,
    database: haulout_nix::db::Database,
}

impl StoreSource {
    /// Of the store at a location.
    ///
    /// # Errors
    /// When its database cannot be opened.
    pub fn open(location: &haulout_nix::db::StoreLocation) -> Result<Self, DepotError> {
        let database = haulout_nix::db::Database::open(location).map_err(|error| {
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
    fn info(&self, hash: HashPart) -> crate::BoxFuture<'_, Result<Option<PathInfo>, DepotError>> {
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
    ) -> crate::BoxFuture<'a, Result<(), DepotError>> {
        // Called on a thread that may block.
        Box::pin(async move {
            let path: PathBuf = self.location.real_path(&info.path);
            haulout_nix::nar::dump(Path::new(&path), &mut out)
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
