use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn announcements_stay_rare_however_many_peers_there_are() {
    assert_eq!([gather(0), gather(20), gather(39)], [GATHER_MIN; 3]);
    assert_eq!(gather(400), Duration::from_secs(1));
    assert_eq!([gather(800), gather(usize::MAX)], [GATHER_MAX; 2]);
    for peers in 40..1_000 {
        let per_second = peers as f64 / gather(peers).as_secs_f64();
        assert!(per_second <= 800.0, "{peers}: {per_second}");
    }
}

/// splitmix64: enough randomness for test data.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (0..).scan(seed, |state: &mut u64, _: u32| {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(z ^ (z >> 31))
    })
}

#[test]
fn fifty_thousand_paths_are_about_110_kib() {
    let entries = numbers(1).take(50_000).map(|n| n as u32).collect();
    let bytes = Snapshot::new(7, entries).unwrap().encode().len();
    assert!((108 * 1024..112 * 1024).contains(&bytes), "{bytes} bytes");
}

#[test]
fn known_bytes_stay_the_same() {
    let snapshot = Snapshot::new(0x0102, vec![0, 1, 0x8000_0000, u32::MAX]).unwrap();
    let bytes = snapshot.encode();
    // Four entries: k = 29, gaps 0, 0, 0x7ffffffe, 0x7ffffffe.
    let mut wanted = vec![1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 4];
    let bits = [
        format!("0{:029b}", 0),
        format!("0{:029b}", 0),
        format!("1110{:029b}", 0x1fff_fffe),
        format!("1110{:029b}", 0x1fff_fffe),
    ]
    .concat();
    for chunk in bits.as_bytes().chunks(8) {
        let text = std::str::from_utf8(chunk).unwrap();
        wanted.push(u8::from_str_radix(&format!("{text:0<8}"), 2).unwrap());
    }
    assert_eq!(bytes, wanted);
    assert_eq!(Snapshot::decode(&bytes).unwrap(), snapshot);
}

#[test]
fn the_worst_sets_stay_within_the_byte_limit() {
    let low: Vec<u32> = (0..ENTRIES_MAX as u32).collect();
    // All gaps short but the last: the longest unary part.
    let mut split = low.clone();
    *split.last_mut().unwrap() = u32::MAX;
    let spread: Vec<u32> = (0..ENTRIES_MAX as u32).map(|n| n * 4294).collect();
    for entries in [low, split, spread] {
        let snapshot = Snapshot::new(1, entries).unwrap();
        let bytes = snapshot.encode();
        assert!(bytes.len() <= SNAPSHOT_BYTES_MAX, "{} > {SNAPSHOT_BYTES_MAX}", bytes.len());
        assert_eq!(Snapshot::decode(&bytes).unwrap(), snapshot);
    }
    const { assert!(SNAPSHOT_BYTES_MAX < 2_300_000) };
}

#[test]
fn a_promise_of_many_entries_allocates_nothing() {
    let mut bytes = vec![KIND_SNAPSHOT];
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&(ENTRIES_MAX as u32).to_be_bytes());
    bytes.extend_from_slice(&[0; 100]);
    assert_eq!(Snapshot::decode(&bytes), Err(HoldingsError::Truncated));
    bytes[9..13].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(Snapshot::decode(&bytes), Err(HoldingsError::TooMany(u64::from(u32::MAX))));
}

#[test]
fn hostile_forms_are_refused() {
    let good = Snapshot::new(9, vec![5, 6, 70_000]).unwrap().encode();
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Snapshot::decode(&longer), Err(HoldingsError::Trailing(1)));
    assert_eq!(Snapshot::decode(&good[..good.len() - 1]), Err(HoldingsError::Truncated));
    let mut padded = good.clone();
    *padded.last_mut().unwrap() |= 1;
    assert_eq!(Snapshot::decode(&padded), Err(HoldingsError::Padding));
    assert_eq!(Delta::decode(&good), Err(HoldingsError::Kind(KIND_SNAPSHOT)));
    assert_eq!(Message::decode(&[]), Err(HoldingsError::Truncated));
    assert_eq!(Message::decode(&[9]), Err(HoldingsError::Kind(9)));
    let mut endless = good[..13].to_vec();
    endless.extend_from_slice(&[0xff; 1000]);
    assert_eq!(Snapshot::decode(&endless), Err(HoldingsError::OutOfRange));
}

#[test]
fn a_delta_must_make_sense() {
    assert_eq!(Delta::new(2, 2, vec![1], vec![]), Err(HoldingsError::Delta));
    assert_eq!(Delta::new(1, 2, vec![], vec![]), Err(HoldingsError::Delta));
    assert_eq!(Delta::new(1, 2, vec![3, 4], vec![4]), Err(HoldingsError::Delta));
    let many = (0..=DELTA_ENTRIES_MAX as u32).collect();
    assert!(matches!(Delta::new(1, 2, many, vec![]), Err(HoldingsError::TooMany(_))));
}

#[test]
fn two_keys_with_one_prefix_are_one_entry() {
    let mut ledger = Ledger::new(0);
    assert!(ledger.change([], [7, 7]).is_some());
    assert_eq!(ledger.change([7], []), None);
    assert_eq!(ledger.len(), 1);
    assert!(ledger.change([7], []).is_some());
    assert!(ledger.is_empty());
}

#[test]
fn who_is_too_far_behind_gets_a_snapshot() {
    let mut ledger = Ledger::new(4);
    ledger.change([], 0..40_000);
    let old = ledger.version();
    for batch in 0..20u32 {
        ledger.change(batch * 1000..(batch + 1) * 1000, []);
    }
    assert!(matches!(ledger.since(Some(old)), Update::Snapshot(_)));
    assert!(matches!(ledger.since(Some(ledger.version() - 1)), Update::Delta(_)));
    assert!(matches!(ledger.since(Some(ledger.version() + 1)), Update::Snapshot(_)));
    assert_eq!(ledger.since(Some(ledger.version())), Update::Nothing);
}

fn apply(set: &mut BTreeSet<u32>, delta: &Delta) {
    for entry in delta.removed() {
        assert!(set.remove(entry), "a delta removes only what was there");
    }
    for entry in delta.added() {
        assert!(set.insert(*entry), "a delta adds only what was not there");
    }
}

proptest! {
    #[test]
    fn snapshots_round_trip(version: u64, entries in prop::collection::vec(any::<u32>(), 0..2000)) {
        let snapshot = Snapshot::new(version, entries).unwrap();
        let bytes = snapshot.encode();
        prop_assert!(bytes.len() <= 13 + rice::bytes_max(snapshot.entries().len() as u32));
        prop_assert_eq!(Message::decode(&bytes).unwrap(), Message::Snapshot(snapshot));
    }

    #[test]
    fn clustered_snapshots_round_trip(start: u32, gaps in prop::collection::vec(0u32..50, 0..2000)) {
        let entries: Vec<u32> =
            gaps.iter().scan(start, |at, gap| { *at = at.wrapping_add(*gap); Some(*at) }).collect();
        let snapshot = Snapshot::new(1, entries).unwrap();
        prop_assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
    }

    #[test]
    fn deltas_round_trip(
        base in 0u64..u64::MAX,
        removed in prop::collection::vec(any::<u32>(), 0..300),
        added in prop::collection::vec(any::<u32>(), 1..300),
    ) {
        if let Ok(delta) = Delta::new(base, u64::MAX, removed, added) {
            prop_assert_eq!(Message::decode(&delta.encode()).unwrap(), Message::Delta(delta));
        }
    }

    #[test]
    fn whatever_decodes_is_canonical(mut bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..60) {
        // Steer towards plausible headers, so that the bit reader is reached.
        if bytes.len() > 13 {
            bytes[0] = 1 + bytes[0] % 2;
            bytes[9..13].copy_from_slice(&count.to_be_bytes());
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_flipped_bit_never_passes_as_the_same(entries in prop::collection::vec(any::<u32>(), 1..100), bit: usize) {
        let good = Snapshot::new(3, entries).unwrap();
        let mut bytes = good.encode();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = Snapshot::decode(&bytes) {
            prop_assert_ne!(other, good);
        }
    }

    #[test]
    fn a_follower_of_the_ledger_stays_equal(
        random: u64,
        batches in prop::collection::vec(
            (prop::collection::vec(0u32..40, 0..8), prop::collection::vec(0u32..40, 0..8), any::<bool>()), 0..40),
    ) {
        let mut ledger = Ledger::new(random);
        let mut follower = BTreeSet::new();
        let mut known = None;
        for (gone, come, tell) in batches {
            ledger.change(gone, come);
            if !tell { continue }
            match ledger.since(known) {
                Update::Nothing => {}
                Update::Delta(delta) => { apply(&mut follower, &delta); known = Some(delta.version()); }
                Update::Snapshot(snapshot) => {
                    follower = snapshot.entries().iter().copied().collect();
                    known = Some(snapshot.version());
                }
            }
            let truth: BTreeSet<u32> = ledger.snapshot().entries().iter().copied().collect();
            prop_assert_eq!(&follower, &truth);
        }
    }
}
