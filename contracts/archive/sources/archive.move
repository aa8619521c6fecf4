/// A Nix binary cache whose content lies on Walrus.
///
/// One shared `Archive` names everything: its levels are index segments, each given by the Merkle
/// root over its entries and by the Walrus blob that holds it. A path costs nothing here; an update
/// is one transaction however many paths it brings. An `OwnerCap` says who may publish, a
/// `PublisherCap` publishes. docs/archive-format.md has the layouts and what a reader does with them.
module haulout_archive::archive;

use std::string::String;
use sui::clock::Clock;
use sui::event;
use walrus::blob::Blob;
use walrus::system::System;

/// Most levels of an archive. Each is one more place to look at for a reader.
const LEVELS_MAX: u64 = 8;
/// Most publishers at a time.
const PUBLISHERS_MAX: u64 = 8;
/// Most bytes of the store directory and of the name.
const TEXT_BYTES_MAX: u64 = 128;
/// Bytes of a Merkle root.
const ROOT_BYTES: u64 = 32;

// Abort codes. They are part of the interface: the command line explains them by number.

/// The owner's cap is that of another archive.
const EForeignOwner: u64 = 1;
/// The publisher's cap is that of another archive.
const EForeignPublisher: u64 = 2;
/// The publisher's cap was revoked.
const ERevoked: u64 = 3;
/// Somebody else was faster: the sequence is not the expected one.
const ESequence: u64 = 4;
/// The archive is frozen.
const EFrozen: u64 = 5;
/// A root must be 32 bytes.
const ERootLength: u64 = 6;
/// A level without entries.
const ENoLeaves: u64 = 7;
/// The index blob is registered, but not certified.
const ENotCertified: u64 = 8;
/// The index blob could be deleted by its owner at any time.
const EDeletable: u64 = 9;
/// The storage of the index blob ends before the level does.
const EStorageEnds: u64 = 10;
/// The level has already ended.
const EExpired: u64 = 11;
/// More than `LEVELS_MAX` levels.
const ETooManyLevels: u64 = 12;
/// The kept positions must rise and exist.
const EKeep: u64 = 13;
/// The place of the new level is beyond the kept ones.
const EPlace: u64 = 14;
/// The blob is not the level's index, or the new end is not later.
const ENotAnExtension: u64 = 15;
/// The store directory must be an absolute path of at most 128 bytes, the name at most 128 bytes.
const EText: u64 = 16;
/// More than `PUBLISHERS_MAX` publishers.
const ETooManyPublishers: u64 = 17;
/// No such publisher.
const ENoSuchPublisher: u64 = 18;

/// An archive. Shared: everybody reads it, caps change it.
public struct Archive has key {
    id: UID,
    /// Rises by one with every update. Readers refuse to go back.
    sequence: u64,
    /// Time of the last update, milliseconds since 1970.
    updated_ms: u64,
    /// Index segments, newest first. An entry in a newer one hides those in older ones.
    levels: vector<Level>,
    /// Ids of the publisher caps that are valid.
    publishers: vector<ID>,
    /// No update will ever follow.
    frozen: bool,
    /// The store directory of all paths, such as `/nix/store`.
    store_dir: String,
    /// What the owner calls it.
    name: String,
}

/// One index segment.
public struct Level has copy, drop, store {
    /// Merkle root over its entries, 32 bytes. The number of leaves is bound into it.
    root: vector<u8>,
    /// Number of entries.
    leaves: u64,
    /// Walrus blob id of the segment.
    index_blob: u256,
    /// The Walrus `Blob` object that was checked.
    blob_object: ID,
    /// Bytes of the segment.
    index_size: u64,
    /// First Walrus epoch at which the segment, or a pack that it names, need no longer be stored.
    end_epoch: u32,
}

/// Says who may publish, and may freeze.
public struct OwnerCap has key, store { id: UID, archive: ID }

/// Publishes, as long as the archive lists it.
public struct PublisherCap has key, store { id: UID, archive: ID }

public struct Created has copy, drop { archive: ID, owner: ID, publisher: ID }

/// The whole state after an update, so that events alone tell an archive's history.
public struct Updated has copy, drop {
    archive: ID,
    sequence: u64,
    updated_ms: u64,
    publisher: ID,
    levels: vector<Level>,
}

public struct PublisherAdded has copy, drop { archive: ID, publisher: ID }

public struct PublisherRevoked has copy, drop { archive: ID, publisher: ID }

public struct Frozen has copy, drop { archive: ID, sequence: u64 }

/// Makes an archive without levels and shares it. Gives the owner's cap and a first publisher's.
public fun create(store_dir: String, name: String, ctx: &mut TxContext): (OwnerCap, PublisherCap) {
    let dir = store_dir.as_bytes();
    assert!(dir.length() > 1 && dir.length() <= TEXT_BYTES_MAX && dir[0] == 0x2f, EText);
    assert!(name.as_bytes().length() <= TEXT_BYTES_MAX, EText);
    let mut archive = Archive {
        id: object::new(ctx),
        sequence: 0,
        updated_ms: 0,
        levels: vector[],
        publishers: vector[],
        frozen: false,
        store_dir,
        name,
    };
    let id = object::id(&archive);
    let owner = OwnerCap { id: object::new(ctx), archive: id };
    let publisher = PublisherCap { id: object::new(ctx), archive: id };
    archive.publishers.push_back(object::id(&publisher));
    event::emit(Created { archive: id, owner: object::id(&owner), publisher: object::id(&publisher) });
    transfer::share_object(archive);
    (owner, publisher)
}

/// Adds a level and drops others, if the sequence is still `expected`.
///
/// `keep` are the positions of the levels that stay, rising; `place` is where the new one goes
/// among them (0: it is the newest). `blob` holds the new segment: it must be certified, not
/// deletable, and stored at least until `end_epoch`. Kept levels must not have ended.
public fun update(
    self: &mut Archive,
    cap: &PublisherCap,
    expected: u64,
    root: vector<u8>,
    leaves: u64,
    end_epoch: u32,
    keep: vector<u64>,
    place: u64,
    blob: &Blob,
    system: &System,
    clock: &Clock,
) {
    self.assert_may_update(cap, expected);
    let now = system.epoch();
    let added = level(root, leaves, end_epoch, blob, now);
    let count = keep.length();
    assert!(count < LEVELS_MAX, ETooManyLevels);
    assert!(place <= count, EPlace);

    let mut levels = vector[];
    let mut i = 0u64;
    while (i < count) {
        if (i == place) levels.push_back(added);
        let position = keep[i];
        assert!(position < self.levels.length(), EKeep);
        assert!(i == 0 || keep[i - 1] < position, EKeep);
        let kept = self.levels[position];
        assert!(kept.end_epoch > now, EExpired);
        levels.push_back(kept);
        i = i + 1;
    };
    if (place == count) levels.push_back(added);
    self.levels = levels;
    self.record(cap, clock);
}

/// Moves the end of one level, after the storage of its blobs was extended.
public fun extend(
    self: &mut Archive,
    cap: &PublisherCap,
    expected: u64,
    position: u64,
    end_epoch: u32,
    blob: &Blob,
    system: &System,
    clock: &Clock,
) {
    self.assert_may_update(cap, expected);
    assert!(position < self.levels.length(), EKeep);
    let old = self.levels[position];
    let new = level(old.root, old.leaves, end_epoch, blob, system.epoch());
    assert!(new.index_blob == old.index_blob && new.end_epoch > old.end_epoch, ENotAnExtension);
    let place = &mut self.levels[position];
    *place = new;
    self.record(cap, clock);
}

/// Says that the archive is up to date although nothing was published.
public fun beat(self: &mut Archive, cap: &PublisherCap, expected: u64, clock: &Clock) {
    self.assert_may_update(cap, expected);
    self.record(cap, clock);
}

/// Makes another publisher's cap.
public fun add_publisher(self: &mut Archive, owner: &OwnerCap, ctx: &mut TxContext): PublisherCap {
    self.assert_owner(owner);
    assert!(self.publishers.length() < PUBLISHERS_MAX, ETooManyPublishers);
    let cap = PublisherCap { id: object::new(ctx), archive: object::id(self) };
    self.publishers.push_back(object::id(&cap));
    event::emit(PublisherAdded { archive: object::id(self), publisher: object::id(&cap) });
    cap
}

/// Makes a publisher's cap worthless, wherever it is.
public fun revoke_publisher(self: &mut Archive, owner: &OwnerCap, publisher: ID) {
    self.assert_owner(owner);
    let at = self.publisher_position(publisher);
    assert!(at < self.publishers.length(), ENoSuchPublisher);
    self.publishers.swap_remove(at);
    event::emit(PublisherRevoked { archive: object::id(self), publisher });
}

/// Replaces a publisher's cap: the old one is worthless from here on.
public fun rotate_publisher(
    self: &mut Archive,
    owner: &OwnerCap,
    publisher: ID,
    ctx: &mut TxContext,
): PublisherCap {
    self.revoke_publisher(owner, publisher);
    self.add_publisher(owner, ctx)
}

/// Ends the archive's changes for good: nobody can update it, or undo this.
public fun freeze_forever(self: &mut Archive, owner: OwnerCap) {
    self.assert_owner(&owner);
    let OwnerCap { id, archive: _ } = owner;
    id.delete();
    self.frozen = true;
    event::emit(Frozen { archive: object::id(self), sequence: self.sequence });
}

/// Throws a cap away and gets its deposit back. The archive goes on listing it, harmlessly.
public fun drop_publisher_cap(cap: PublisherCap) {
    let PublisherCap { id, archive: _ } = cap;
    id.delete();
}

public fun sequence(self: &Archive): u64 { self.sequence }

public fun updated_ms(self: &Archive): u64 { self.updated_ms }

public fun levels(self: &Archive): &vector<Level> { &self.levels }

public fun publishers(self: &Archive): &vector<ID> { &self.publishers }

public fun is_frozen(self: &Archive): bool { self.frozen }

public fun store_dir(self: &Archive): String { self.store_dir }

public fun name(self: &Archive): String { self.name }

public fun root(level: &Level): vector<u8> { level.root }

public fun leaves(level: &Level): u64 { level.leaves }

public fun index_blob(level: &Level): u256 { level.index_blob }

public fun blob_object(level: &Level): ID { level.blob_object }

public fun index_size(level: &Level): u64 { level.index_size }

public fun end_epoch(level: &Level): u32 { level.end_epoch }

fun level(root: vector<u8>, leaves: u64, end_epoch: u32, blob: &Blob, now: u32): Level {
    assert!(root.length() == ROOT_BYTES, ERootLength);
    assert!(leaves > 0, ENoLeaves);
    assert!(blob.certified_epoch().is_some(), ENotCertified);
    assert!(!blob.is_deletable(), EDeletable);
    assert!(blob.end_epoch() >= end_epoch, EStorageEnds);
    assert!(end_epoch > now, EExpired);
    Level {
        root,
        leaves,
        index_blob: blob.blob_id(),
        blob_object: blob.object_id(),
        index_size: blob.size(),
        end_epoch,
    }
}

fun record(self: &mut Archive, cap: &PublisherCap, clock: &Clock) {
    self.sequence = self.sequence + 1;
    self.updated_ms = clock.timestamp_ms();
    event::emit(Updated {
        archive: object::id(self),
        sequence: self.sequence,
        updated_ms: self.updated_ms,
        publisher: object::id(cap),
        levels: self.levels,
    });
}

fun assert_owner(self: &Archive, owner: &OwnerCap) {
    assert!(owner.archive == object::id(self), EForeignOwner);
}

fun assert_may_update(self: &Archive, cap: &PublisherCap, expected: u64) {
    assert!(cap.archive == object::id(self), EForeignPublisher);
    assert!(self.publisher_position(object::id(cap)) < self.publishers.length(), ERevoked);
    assert!(!self.frozen, EFrozen);
    assert!(self.sequence == expected, ESequence);
}

/// The position of a publisher, or their number if there is no such one.
fun publisher_position(self: &Archive, publisher: ID): u64 {
    let mut i = 0u64;
    while (i < self.publishers.length() && self.publishers[i] != publisher) i = i + 1;
    i
}

#[test_only]
/// As `create`, with the archive in the hand of the test instead of shared.
public fun create_for_testing(
    store_dir: String,
    name: String,
    ctx: &mut TxContext,
): (Archive, OwnerCap, PublisherCap) {
    let mut archive = Archive {
        id: object::new(ctx),
        sequence: 0,
        updated_ms: 0,
        levels: vector[],
        publishers: vector[],
        frozen: false,
        store_dir,
        name,
    };
    let id = object::id(&archive);
    let owner = OwnerCap { id: object::new(ctx), archive: id };
    let publisher = PublisherCap { id: object::new(ctx), archive: id };
    archive.publishers.push_back(object::id(&publisher));
    (archive, owner, publisher)
}
