//! All valid paths of the own store, in 21 bytes each.

use haulout_nix::HashPart;

/// What kind of path it is, as far as its database row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It claims a signature by a key on the share list.
    Signed,
    /// Built here, or signed by others only.
    Local,
    /// Content-addressed and not signed by a key on the share list: a source,
    /// a derivation, something somebody added by hand.
    Addressed,
}

/// What a real check of the signature said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Nobody asked yet.
    NotYet,
    /// It holds.
    Holds,
    /// It does not: the path is treated as one without.
    Fails,
}

/// A path's place in the sharing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) class: Class,
    pub(crate) checked: Checked,
}

impl Standing {
    pub(crate) const fn new(class: Class) -> Self {
        Self { class, checked: Checked::NotYet }
    }

    /// Signed by a key on the share list, as far as is known.
    pub(crate) fn is_public(self) -> bool {
        self.class == Class::Signed && self.checked != Checked::Fails
    }
}

#[derive(Clone, Copy)]
struct Entry {
    hash: HashPart,
    standing: Standing,
}

/// The paths of one store, sorted by hash part.
#[derive(Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
}

impl Index {
    fn place(&self, hash: &HashPart) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.hash.cmp(hash))
    }

    /// The standing of a path; `None` if it is not valid here.
    pub(crate) fn get(&self, hash: &HashPart) -> Option<Standing> {
        self.place(hash).ok().map(|at| self.entries[at].standing)
    }

    /// Notes what a check said. Gives the standing before.
    pub(crate) fn set_checked(&mut self, hash: &HashPart, checked: Checked) -> Option<Standing> {
        let at = self.place(hash).ok()?;
        let before = self.entries[at].standing;
        self.entries[at].standing.checked = checked;
        Some(before)
    }

    /// Takes many paths out; gives those that were there.
    pub(crate) fn remove(&mut self, mut hashes: Vec<HashPart>) -> Vec<(HashPart, Standing)> {
        hashes.sort_unstable();
        let mut gone = Vec::with_capacity(hashes.len());
        if !hashes.is_empty() {
            self.entries.retain(|entry| {
                let goes = hashes.binary_search(&entry.hash).is_ok();
                if goes {
                    gone.push((entry.hash, entry.standing));
                }
                !goes
            });
        }
        gone
    }

    /// Puts many paths in that are not there.
    pub(crate) fn insert(&mut self, paths: impl IntoIterator<Item = (HashPart, Standing)>) {
        self.entries.extend(paths.into_iter().map(|(hash, standing)| Entry { hash, standing }));
        // Doubling would keep up to as much again for nothing.
        self.entries.shrink_to(self.entries.len() + self.entries.len() / 16);
        // Sorted runs: the standard sort notices and merges.
        self.entries.sort_by_key(|entry| entry.hash);
    }

    /// How many paths there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them anybody may have.
    pub(crate) fn public(&self) -> usize {
        self.entries.iter().filter(|entry| entry.standing.is_public()).count()
    }

    /// All paths with their standing, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HashPart, Standing)> + '_ {
        self.entries.iter().map(|entry| (entry.hash, entry.standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> HashPart {
        HashPart::from_bytes([n; 20])
    }

    #[test]
    fn entries_are_small() {
        assert!(size_of::<Entry>() <= 22);
    }

    #[test]
    fn paths_come_and_go() {
        let mut index = Index::default();
        index.insert([3, 1, 2].map(|n| (hash(n), Standing::new(Class::Signed))));
        index.insert([(hash(0), Standing::new(Class::Local))]);
        assert_eq!((index.len(), index.public()), (4, 3));
        index.set_checked(&hash(2), Checked::Fails);
        assert_eq!(index.public(), 2);
        let gone = index.remove(vec![hash(9), hash(3), hash(0)]);
        assert_eq!(gone.iter().map(|(hash, _)| *hash).collect::<Vec<_>>(), [hash(0), hash(3)]);
        assert!(index.get(&hash(3)).is_none());
        assert!(index.get(&hash(1)).is_some());
    }
}
