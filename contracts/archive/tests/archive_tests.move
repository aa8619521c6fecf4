#[test_only]
module haulout_archive::archive_tests;

use haulout_archive::archive::{Self, Archive, OwnerCap, PublisherCap};
use std::unit_test::destroy;
use sui::clock::{Self, Clock};
use sui::event;
use sui::tx_context;
use walrus::blob::{Self, Blob};
use walrus::system::{Self, System};

/// Walrus epoch of all tests.
const NOW: u32 = 40;
/// Epoch until which the blobs of most tests are stored.
const END: u32 = 60;

const ROOT_A: vector<u8> = x"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ROOT_B: vector<u8> = x"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const ROOT_C: vector<u8> = x"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// What a publisher has in hand.
public struct World {
    ctx: TxContext,
    archive: Archive,
    owner: OwnerCap,
    publisher: PublisherCap,
    system: System,
    clock: Clock,
}

fun world(): World {
    let mut ctx = tx_context::for_testing(@0xA);
    let (archive, owner, publisher) =
        archive::create_for_testing(b"/nix/store".to_string(), b"ours".to_string(), &mut ctx);
    let system = system::for_testing(NOW, &mut ctx);
    let clock = clock::for_testing(1_700_000_000_000, &mut ctx);
    World { ctx, archive, owner, publisher, system, clock }
}

/// Another archive with its caps.
fun stranger(world: &mut World): (Archive, OwnerCap, PublisherCap) {
    archive::create_for_testing(b"/nix/store".to_string(), b"theirs".to_string(), &mut world.ctx)
}

use fun std::string::utf8 as vector.to_string;

fun certified(world: &mut World, id: u256): Blob {
    blob::for_testing(id, 1_000 * (id as u64), option::some(NOW), END, false, &mut world.ctx)
}

/// Publishes `root` as the newest level, with blob id `id`, keeping `keep`.
fun publish(world: &mut World, expected: u64, root: vector<u8>, id: u256, keep: vector<u64>) {
    let blob = certified(world, id);
    world.update(expected, root, 5, END, keep, 0, &blob);
    destroy(blob);
}

fun update(
    world: &mut World,
    expected: u64,
    root: vector<u8>,
    leaves: u64,
    end: u32,
    keep: vector<u64>,
    place: u64,
    blob: &Blob,
) {
    world.archive.update(
        &world.publisher, expected, root, leaves, end, keep, place, blob, &world.system, &world.clock,
    );
}

fun id_of_level(world: &World, i: u64): u256 { world.archive.levels()[i].index_blob() }

#[test]
fun create_shares_and_gives_two_caps() {
    let mut ctx = tx_context::for_testing(@0xA);
    let (owner, publisher) = archive::create(b"/nix/store".to_string(), b"".to_string(), &mut ctx);
    assert!(event::events_by_type<archive::Created>().length() == 1);
    destroy(owner);
    destroy(publisher);
}

#[test]
fun update_takes_the_facts_from_the_blob() {
    let mut all = world();
    let w = &mut all;
    let blob = certified(w, 7);
    // The level may end before the blob does: its packs may.
    w.update(0, ROOT_A, 342, END - 5, vector[], 0, &blob);
    assert!(w.archive.sequence() == 1);
    assert!(w.archive.updated_ms() == 1_700_000_000_000);
    assert!(w.archive.levels().length() == 1);
    let level = w.archive.levels()[0];
    assert!(level.root() == ROOT_A);
    assert!(level.leaves() == 342);
    assert!(level.index_blob() == 7);
    assert!(level.blob_object() == blob.object_id());
    assert!(level.index_size() == 7_000);
    assert!(level.end_epoch() == END - 5);
    assert!(event::events_by_type<archive::Updated>().length() == 1);
    destroy(blob);
    destroy(all);
}

#[test]
fun levels_are_kept_dropped_and_placed() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    w.publish(1, ROOT_B, 2, vector[0]);
    w.publish(2, ROOT_C, 3, vector[0, 1]);
    assert!(w.id_of_level(0) == 3 && w.id_of_level(1) == 2 && w.id_of_level(2) == 1);

    // The two older ones are merged while the newest stays in front.
    let merged = certified(w, 4);
    w.update(3, ROOT_A, 10, END, vector[0], 1, &merged);
    assert!(w.archive.levels().length() == 2);
    assert!(w.id_of_level(0) == 3 && w.id_of_level(1) == 4);

    // Everything becomes one.
    w.publish(4, ROOT_B, 5, vector[]);
    assert!(w.archive.levels().length() == 1 && w.id_of_level(0) == 5);
    assert!(w.archive.sequence() == 5);
    destroy(merged);
    destroy(all);
}

#[test]
fun eight_levels_fit() {
    let mut all = world();
    let w = &mut all;
    let mut keep = vector[];
    let mut i = 0u64;
    while (i < 8) {
        w.publish(i, ROOT_A, 100 + (i as u256), keep);
        keep.push_back(i);
        i = i + 1;
    };
    assert!(w.archive.levels().length() == 8);
    assert!(w.id_of_level(0) == 107 && w.id_of_level(7) == 100);
    destroy(all);
}

#[test]
fun extend_and_beat() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    w.publish(1, ROOT_B, 2, vector[0]);
    let longer = blob::for_testing(1, 1_000, option::some(NOW), END + 10, false, &mut w.ctx);
    w.archive.extend(&w.publisher, 2, 1, END + 8, &longer, &w.system, &w.clock);
    assert!(w.archive.levels()[1].end_epoch() == END + 8);
    assert!(w.archive.levels()[1].root() == ROOT_A);
    assert!(w.archive.levels()[1].blob_object() == longer.object_id());
    assert!(w.archive.levels()[0].end_epoch() == END);
    w.archive.beat(&w.publisher, 3, &w.clock);
    assert!(w.archive.sequence() == 4);
    assert!(event::events_by_type<archive::Updated>().length() == 4);
    destroy(longer);
    destroy(all);
}

#[test]
fun a_second_publisher_and_a_rotated_one() {
    let mut all = world();
    let w = &mut all;
    let second = w.archive.add_publisher(&w.owner, &mut w.ctx);
    w.archive.beat(&second, 0, &w.clock);
    w.archive.beat(&w.publisher, 1, &w.clock);
    let first = object::id(&w.publisher);
    let third = w.archive.rotate_publisher(&w.owner, first, &mut w.ctx);
    w.archive.beat(&third, 2, &w.clock);
    assert!(w.archive.publishers().length() == 2);
    assert!(event::events_by_type<archive::PublisherRevoked>().length() == 1);
    assert!(event::events_by_type<archive::PublisherAdded>().length() == 2);
    second.drop_publisher_cap();
    destroy(third);
    destroy(all);
}

#[test]
fun frozen_says_so() {
    let World { ctx, mut archive, owner, publisher, system, clock } = world();
    archive.freeze_forever(owner);
    assert!(archive.is_frozen());
    assert!(event::events_by_type<archive::Frozen>().length() == 1);
    destroy(archive);
    destroy(publisher);
    destroy(system);
    destroy(clock);
    destroy(ctx);
}

// ---- every refusal ---------------------------------------------------------

#[test, expected_failure(abort_code = archive::EForeignOwner)]
fun owner_of_another_archive() {
    let mut all = world();
    let w = &mut all;
    let (_archive, owner, _publisher) = stranger(w);
    let _cap = w.archive.add_publisher(&owner, &mut w.ctx);
    abort
}

#[test, expected_failure(abort_code = archive::EForeignOwner)]
fun owner_of_another_archive_freezes() {
    let mut all = world();
    let w = &mut all;
    let (_archive, owner, _publisher) = stranger(w);
    w.archive.freeze_forever(owner);
    abort
}

#[test, expected_failure(abort_code = archive::EForeignPublisher)]
fun publisher_of_another_archive() {
    let mut all = world();
    let w = &mut all;
    let (_archive, _owner, publisher) = stranger(w);
    w.archive.beat(&publisher, 0, &w.clock);
    abort
}

#[test, expected_failure(abort_code = archive::ERevoked)]
fun revoked_publisher() {
    let mut all = world();
    let w = &mut all;
    let id = object::id(&w.publisher);
    w.archive.revoke_publisher(&w.owner, id);
    w.publish(0, ROOT_A, 1, vector[]);
    abort
}

#[test, expected_failure(abort_code = archive::ERevoked)]
fun rotated_publisher() {
    let mut all = world();
    let w = &mut all;
    let id = object::id(&w.publisher);
    let _new = w.archive.rotate_publisher(&w.owner, id, &mut w.ctx);
    w.archive.beat(&w.publisher, 0, &w.clock);
    abort
}

#[test, expected_failure(abort_code = archive::ESequence)]
fun sequence_too_low() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    w.publish(0, ROOT_B, 2, vector[]);
    abort
}

#[test, expected_failure(abort_code = archive::ESequence)]
fun sequence_too_high() {
    let mut all = world();
    let w = &mut all;
    w.publish(1, ROOT_A, 1, vector[]);
    abort
}

#[test, expected_failure(abort_code = archive::ESequence)]
fun sequence_of_a_beat() {
    let mut all = world();
    let w = &mut all;
    w.archive.beat(&w.publisher, 9, &w.clock);
    abort
}

#[test, expected_failure(abort_code = archive::EFrozen)]
fun update_after_freezing() {
    let World { ctx: _, mut archive, owner, publisher, system: _s, clock } = world();
    archive.freeze_forever(owner);
    archive.beat(&publisher, 0, &clock);
    abort
}

#[test, expected_failure(abort_code = archive::ERootLength)]
fun short_root() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, x"aa", 1, vector[]);
    abort
}

#[test, expected_failure(abort_code = archive::ENoLeaves)]
fun empty_level() {
    let mut all = world();
    let w = &mut all;
    let blob = certified(w, 1);
    w.update(0, ROOT_A, 0, END, vector[], 0, &blob);
    abort
}

#[test, expected_failure(abort_code = archive::ENotCertified)]
fun blob_only_registered() {
    let mut all = world();
    let w = &mut all;
    let blob = blob::for_testing(1, 1, option::none(), END, false, &mut w.ctx);
    w.update(0, ROOT_A, 1, END, vector[], 0, &blob);
    abort
}

#[test, expected_failure(abort_code = archive::EDeletable)]
fun deletable_blob() {
    let mut all = world();
    let w = &mut all;
    let blob = blob::for_testing(1, 1, option::some(NOW), END, true, &mut w.ctx);
    w.update(0, ROOT_A, 1, END, vector[], 0, &blob);
    abort
}

#[test, expected_failure(abort_code = archive::EStorageEnds)]
fun storage_ends_before_the_level() {
    let mut all = world();
    let w = &mut all;
    let blob = certified(w, 1);
    w.update(0, ROOT_A, 1, END + 1, vector[], 0, &blob);
    abort
}

#[test, expected_failure(abort_code = archive::EExpired)]
fun level_that_has_ended() {
    let mut all = world();
    let w = &mut all;
    let blob = certified(w, 1);
    w.update(0, ROOT_A, 1, NOW, vector[], 0, &blob);
    abort
}

#[test, expected_failure(abort_code = archive::EExpired)]
fun kept_level_that_has_ended() {
    let mut all = world();
    let w = &mut all;
    let short = certified(w, 1);
    w.update(0, ROOT_A, 1, NOW + 1, vector[], 0, &short);
    let World { mut ctx, mut archive, owner: _o, publisher, system: _s, clock } = all;
    let later = system::for_testing(NOW + 1, &mut ctx);
    let blob = blob::for_testing(2, 1, option::some(NOW), END, false, &mut ctx);
    archive.update(&publisher, 1, ROOT_B, 1, END, vector[0], 0, &blob, &later, &clock);
    abort
}

#[test, expected_failure(abort_code = archive::ETooManyLevels)]
fun nine_levels() {
    let mut all = world();
    let w = &mut all;
    let mut keep = vector[];
    let mut i = 0u64;
    while (i < 9) {
        w.publish(i, ROOT_A, 1, keep);
        keep.push_back(i);
        i = i + 1;
    };
    abort
}

#[test, expected_failure(abort_code = archive::EKeep)]
fun keep_what_is_not_there() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    w.publish(1, ROOT_B, 2, vector[1]);
    abort
}

#[test, expected_failure(abort_code = archive::EKeep)]
fun keep_the_same_twice() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    w.publish(1, ROOT_B, 2, vector[0, 0]);
    abort
}

#[test, expected_failure(abort_code = archive::EKeep)]
fun keep_in_another_order() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    w.publish(1, ROOT_B, 2, vector[0]);
    w.publish(2, ROOT_C, 3, vector[1, 0]);
    abort
}

#[test, expected_failure(abort_code = archive::EPlace)]
fun place_beyond_the_end() {
    let mut all = world();
    let w = &mut all;
    let blob = certified(w, 1);
    w.update(0, ROOT_A, 1, END, vector[], 1, &blob);
    abort
}

#[test, expected_failure(abort_code = archive::EKeep)]
fun extend_no_level() {
    let mut all = world();
    let w = &mut all;
    let blob = certified(w, 1);
    w.archive.extend(&w.publisher, 0, 0, END, &blob, &w.system, &w.clock);
    abort
}

#[test, expected_failure(abort_code = archive::ENotAnExtension)]
fun extend_with_another_blob() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    let other = blob::for_testing(2, 1_000, option::some(NOW), END + 10, false, &mut w.ctx);
    w.archive.extend(&w.publisher, 1, 0, END + 10, &other, &w.system, &w.clock);
    abort
}

#[test, expected_failure(abort_code = archive::ENotAnExtension)]
fun extend_by_nothing() {
    let mut all = world();
    let w = &mut all;
    w.publish(0, ROOT_A, 1, vector[]);
    let same = certified(w, 1);
    w.archive.extend(&w.publisher, 1, 0, END, &same, &w.system, &w.clock);
    abort
}

#[test, expected_failure(abort_code = archive::EText)]
fun relative_store_directory() {
    let mut ctx = tx_context::for_testing(@0xA);
    let (_o, _p) = archive::create(b"nix/store".to_string(), b"".to_string(), &mut ctx);
    abort
}

#[test, expected_failure(abort_code = archive::EText)]
fun empty_store_directory() {
    let mut ctx = tx_context::for_testing(@0xA);
    let (_o, _p) = archive::create(b"".to_string(), b"".to_string(), &mut ctx);
    abort
}

#[test, expected_failure(abort_code = archive::EText)]
fun long_name() {
    let mut ctx = tx_context::for_testing(@0xA);
    let mut name = b"n";
    let mut i = 0u64;
    while (i < 128) { name.push_back(0x6e); i = i + 1; };
    let (_o, _p) = archive::create(b"/nix/store".to_string(), name.to_string(), &mut ctx);
    abort
}

#[test, expected_failure(abort_code = archive::ETooManyPublishers)]
fun nine_publishers() {
    let mut all = world();
    let w = &mut all;
    let mut i = 0u64;
    while (i < 8) {
        let cap = w.archive.add_publisher(&w.owner, &mut w.ctx);
        destroy(cap);
        i = i + 1;
    };
    abort
}

#[test, expected_failure(abort_code = archive::ENoSuchPublisher)]
fun revoke_nobody() {
    let mut all = world();
    let w = &mut all;
    let id = object::id(&w.owner);
    w.archive.revoke_publisher(&w.owner, id);
    abort
}
