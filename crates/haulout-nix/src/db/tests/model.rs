//! Any steps in any order, against a model.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Remove(u8),
    Sign(u8, u8),
    Checkpoint,
    Reopen,
    Poll,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 1..24u8;
    prop_oneof![
        4 => n.clone().prop_map(Step::Add),
        3 => n.clone().prop_map(Step::Remove),
        2 => (n, any::<u8>()).prop_map(|(n, sig)| Step::Sign(n, sig)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        3 => Just(Step::Poll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever happens between polls, the sum of the changes is the truth.
    #[test]
    fn changes_add_up(steps in prop::collection::vec(step(), 1..60)) {
        let root = tempfile::tempdir().unwrap();
        let mut nix = Nix::new(root.path());
        let database = nix.database();
        let mut follower = Follower::new(Arc::clone(&database));
        let mut truth = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Poll]) {
            match step {
                Step::Add(n) => if truth.insert(n, None).is_none() { nix.add(n.into()) },
                Step::Remove(n) => if truth.remove(&n).is_some() { nix.remove(n.into()) },
                Step::Sign(n, sig) => if let Some(known) = truth.get_mut(&n) {
                    *known = Some(sig);
                    nix.conn.execute("update ValidPaths set sigs = ?1 where path = ?2", params![format!("k{sig}:x"), path(n.into())]).unwrap();
                },
                Step::Checkpoint => {
                    let _ = nix.conn.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
                }
                Step::Reopen => {
                    let location = nix.location.clone();
                    drop(nix);
                    nix = Nix::again(&location);
                }
                Step::Poll => {
                    let changes = follower.poll().unwrap();
                    for hash in changes.removed { prop_assert!(seen.remove(&hash).is_some()); }
                    for row in changes.added { prop_assert!(seen.insert(row.hash, row).is_none()); }
                    for row in changes.changed { prop_assert!(seen.insert(row.hash, row).is_some()); }
                    let known: BTreeMap<_, _> = follower.rows().iter().map(|row| (row.hash, *row)).collect();
                    prop_assert_eq!(&known, &seen);
                    let loaded = database.load().unwrap().unwrap();
                    prop_assert_eq!(hashes(&loaded.rows), expected(truth.keys().map(|&n| u32::from(n))));
                    for (loaded, known) in loaded.rows.iter().zip(follower.rows()) {
                        prop_assert_eq!(loaded.hash, known.hash);
                        prop_assert_eq!(loaded.id, known.id);
                        prop_assert_eq!(
                            database_names(&database, loaded.hash),
                            follower.signers().names(known.signers).iter().map(|n| n.to_string()).collect::<Vec<_>>()
                        );
                    }
                }
            }
        }
    }
}

fn database_names(database: &Database, hash: HashPart) -> Vec<String> {
    let snapshot = database.load().unwrap().unwrap();
    let row = snapshot.rows.iter().find(|row| row.hash == hash).unwrap();
    snapshot.signers.names(row.signers).iter().map(ToString::to_string).collect()
}
