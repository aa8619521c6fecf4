//! Who has to go when the quota is reached. Pure.

/// More holders than this make no difference: somebody will still have it.
const HOLDERS_COUNTED_MAX: u64 = 15;

/// What eviction looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<K> {
    /// Its name.
    pub(crate) key: K,
    pub(crate) size: u64,
    /// When it was last used, on any clock.
    pub(crate) last_use: u64,
    /// How many peers were last seen to hold it as well.
    pub(crate) holders: u32,
}

/// What to remove so that at least `excess` bytes become free, the least missed first.
///
/// Each one's time since its last use is multiplied by one more than the number of others who hold
/// it: what nobody else on the network has may stay sixteen times as long as what everybody has.
pub(crate) fn victims<K: Ord + Copy>(mut all: Vec<Candidate<K>>, excess: u64, now: u64) -> Vec<K> {
    all.sort_by_key(|one| (std::cmp::Reverse(expendability(one, now)), one.key));
    let mut freed = 0_u64;
    all.into_iter()
        .take_while(|one| {
            let needed = freed < excess;
            freed = freed.saturating_add(one.size);
            needed
        })
        .map(|one| one.key)
        .collect()
}

fn expendability<K>(one: &Candidate<K>, now: u64) -> u64 {
    let unused = now.saturating_sub(one.last_use).saturating_add(1);
    unused.saturating_mul(1 + u64::from(one.holders).min(HOLDERS_COUNTED_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: u8, size: u64, last_use: u64, holders: u32) -> Candidate<u8> {
        Candidate { key, size, last_use, holders }
    }

    fn order(all: Vec<Candidate<u8>>, excess: u64) -> Vec<u8> {
        victims(all, excess, 1000)
    }

    #[test]
    fn oldest_first_and_no_more_than_needed() {
        let all = vec![one(1, 10, 900, 0), one(2, 10, 100, 0), one(3, 10, 500, 0)];
        assert_eq!(order(all.clone(), 0), [0; 0]);
        assert_eq!(order(all.clone(), 1), [2]);
        assert_eq!(order(all.clone(), 11), [2, 3]);
        assert_eq!(order(all, u64::MAX), [2, 3, 1]);
    }

    #[test]
    fn what_others_hold_goes_before_what_is_rare() {
        assert_eq!(order(vec![one(1, 10, 400, 0), one(2, 10, 700, 3)], 1), [2]);
        assert_eq!(
            order(vec![one(1, 10, 10, 0), one(2, 10, 990, 1000)], 1),
            [1],
            "but rare things do not stay for ever"
        );
    }

    #[test]
    fn a_clock_that_went_back_harms_nothing() {
        assert_eq!(order(vec![one(1, 10, 5000, 0), one(2, 10, 400, 0)], 1), [2]);
    }
}
