//! Which of the pieces kept for others go first when there is no more room.
//!
//! Machines that want the same closure in the same minute are not in step: one has fetched ahead what another asks for last. A
//! piece that its home has let go of is fetched from outside once more, by the home itself. A piece that somebody else
//! lets go of costs a question to the home. So a home keeps what it fetched until those have had it who may want it, and
//! everybody else keeps what is still to be read here.

/// What a piece is good for. Lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worth {
    /// It was read here, and others can have it elsewhere: it came from a peer, or everybody has had it.
    Spent,
    /// It came from a peer, and is still to be read here.
    Awaited,
    /// This agent fetched it from outside, and there are others who have not had it.
    Owed,
}

impl Worth {
    /// Of a piece: `fetched` from outside by this agent, `read` here to the end, given to the end to `given` of the `others`
    /// that may want it.
    #[must_use]
    pub fn of(fetched: bool, read: bool, given: usize, others: usize) -> Self {
        match (fetched && given < others, read) {
            (true, _) => Self::Owed,
            (false, false) => Self::Awaited,
            (false, true) => Self::Spent,
        }
    }
}

/// A piece that nobody reads or fills at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<K, T> {
    /// Its name.
    pub key: K,
    /// What it is good for.
    pub worth: Worth,
    /// When it was last used.
    pub touched: T,
    /// Its bytes.
    pub bytes: u64,
}

/// Which pieces to let go of, in this order: the least worth first, among its like the longest unused. So that `surplus`
/// pieces and `needed` bytes fewer are kept, and of what is owed to nobody even `wanted` bytes fewer, so that this need not be
/// done for every piece that comes.
pub fn victims<K: Copy, T: Copy + Ord>(
    mut pieces: Vec<Piece<K, T>>,
    needed: u64,
    wanted: u64,
    surplus: usize,
) -> Vec<Piece<K, T>> {
    pieces.sort_by_key(|piece| (piece.worth, piece.touched));
    let (mut freed, mut gone) = (0_u64, 0);
    pieces
        .into_iter()
        .take_while(|piece| {
            let bytes = if piece.worth == Worth::Owed { needed } else { wanted };
            let goes = freed < bytes || gone < surplus;
            freed = freed.saturating_add(piece.bytes);
            gone += 1;
            goes
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn piece(key: u32, worth: Worth, touched: u64) -> Piece<u32, u64> {
        Piece { key, worth, touched, bytes: 10 }
    }

    fn order(pieces: &[Piece<u32, u64>], excess: u64, surplus: usize) -> Vec<u32> {
        let gone = victims(pieces.to_vec(), excess, excess, surplus);
        gone.into_iter().map(|piece| piece.key).collect()
    }

    #[test]
    fn what_others_can_have_elsewhere_goes_first() {
        let pieces = [
            piece(1, Worth::Owed, 1),
            piece(2, Worth::Spent, 9),
            piece(3, Worth::Awaited, 2),
            piece(4, Worth::Spent, 8),
        ];
        assert_eq!(order(&pieces, 0, 0), [0; 0]);
        assert_eq!(order(&pieces, 1, 0), [4]);
        assert_eq!(order(&pieces, 11, 0), [4, 2]);
        assert_eq!(order(&pieces, 0, 3), [4, 2, 3]);
        assert_eq!(order(&pieces, 5, 9), [4, 2, 3, 1]);
        // More than is needed goes only of what is owed to nobody.
        let gone = |needed| victims(pieces.to_vec(), needed, 100, 0).len();
        assert_eq!((gone(0), gone(30), gone(31)), (3, 3, 4));
    }

    #[test]
    fn a_home_owes_a_piece_until_everybody_had_it() {
        assert_eq!(Worth::of(true, true, 6, 7), Worth::Owed);
        assert_eq!(Worth::of(true, true, 7, 7), Worth::Spent);
        assert_eq!(Worth::of(true, false, 7, 7), Worth::Awaited);
        assert_eq!(Worth::of(true, true, 0, 0), Worth::Spent, "there is nobody");
        assert_eq!(Worth::of(false, true, 0, 7), Worth::Spent);
        assert_eq!(Worth::of(false, false, 0, 7), Worth::Awaited);
    }

    /// Eight machines read the same pieces through homes; each has its own place in the list and its own pace, and room for
    /// far less than the whole. How often a piece is fetched from outside.
    fn downloads(worth: impl Fn(bool, bool, usize, usize) -> Worth, skew: usize) -> f64 {
        const MACHINES: usize = 8;
        const PIECES: usize = 320;
        const ROOM: usize = 100;
        #[derive(Clone, Copy, Default)]
        struct Kept {
            fetched: bool,
            read: bool,
            given: usize,
            touched: u64,
        }
        let mut kept: Vec<BTreeMap<usize, Kept>> = vec![BTreeMap::new(); MACHINES];
        let mut outside = 0;
        let (mut clock, mut most) = (0, 0);
        for step in 0..PIECES + MACHINES * skew {
            for machine in 0..MACHINES {
                let Some(number) = step.checked_sub(machine * skew).filter(|n| *n < PIECES) else {
                    continue;
                };
                clock += 1;
                let home = number * 5 % MACHINES;
                let known = kept[home].contains_key(&number);
                outside += usize::from(!known);
                let at_home = kept[home].entry(number).or_default();
                at_home.touched = clock;
                at_home.fetched = true;
                if home == machine {
                    at_home.read = true;
                } else {
                    at_home.given += 1;
                    let read = Kept { read: true, touched: clock, ..Kept::default() };
                    kept[machine].insert(number, read);
                }
                for one in &mut kept {
                    let of = |(key, kept): (&usize, &Kept)| Piece {
                        key: *key,
                        worth: worth(kept.fetched, kept.read, kept.given, MACHINES - 1),
                        touched: kept.touched,
                        bytes: 1,
                    };
                    let pieces: Vec<Piece<usize, u64>> = one.iter().map(of).collect();
                    let excess = one.len().saturating_sub(ROOM) as u64;
                    let gone: BTreeSet<usize> = victims(pieces, excess, excess, 0)
                        .into_iter()
                        .map(|piece| piece.key)
                        .collect();
                    one.retain(|key, _| !gone.contains(key));
                    most = most.max(one.len());
                }
            }
        }
        assert!(most <= ROOM);
        outside as f64 / PIECES as f64
    }

    #[test]
    fn a_closure_larger_than_what_each_keeps_is_still_fetched_once() {
        for skew in [0, 3, 14, 40, 80] {
            assert_eq!(downloads(Worth::of, skew), 1.0, "{skew} apart");
        }
        // Without the difference, the longest unused first, those behind cost the line again.
        assert!(downloads(|_, _, _, _| Worth::Spent, 80) > 1.05);
    }
}
