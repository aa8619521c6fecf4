//! What to fetch before Nix asks: the rules, without I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use haulout_nix::HashPart;
use haulout_swarm::Now;
use haulout_swarm::rate::Limiter;

/// Files that may wait to be fetched.
pub(super) const FILES_MAX: usize = 4_096;
/// How long Nix may take to come for a file before its room goes to others; and how long it may do nothing at all before
/// it is taken to want none of them after all: it was only asked what there is, or was stopped.
pub(super) const WANTED_WITHIN: Duration = Duration::from_secs(20);

/// Files that Nix will probably ask for, and those that were fetched and not asked for yet.
pub(super) struct Wishes<T> {
    /// Bytes that may wait to be wanted.
    budget: u64,
    line: Limiter,
    files: HashMap<HashPart, File<T>>,
    /// The order in which Nix will come for them, the first last. Some of them are not in `files` any more.
    order: Vec<HashPart>,
    /// Files have come since `order` was made.
    unordered: bool,
    /// Fetched and not asked for: what, how large, when.
    waiting: VecDeque<(HashPart, u64, Now)>,
    /// When Nix last asked for anything, or took anything.
    active: Option<Now>,
}

struct File<T> {
    size: u64,
    references: Vec<HashPart>,
    file: T,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    Fetch(T),
    /// Look again then: the bandwidth is used up, or something that nobody came for makes room.
    After(Duration),
    /// Until something is asked for.
    Nothing,
}

impl<T> Wishes<T> {
    pub(super) fn new(budget: u64, bytes_per_second: Option<u64>) -> Self {
        Self {
            budget,
            line: Limiter::new(bytes_per_second),
            files: HashMap::new(),
            order: Vec::new(),
            unordered: false,
            waiting: VecDeque::new(),
            active: None,
        }
    }

    /// Nix does something.
    pub(super) fn active(&mut self, now: Now) {
        self.active = Some(now);
    }

    /// Whether Nix is still at it. If not, nothing of this is wanted any more.
    pub(super) fn is_active(&self, now: Now) -> bool {
        self.active.is_some_and(|since| now.since(since) < WANTED_WITHIN)
    }

    /// Nix asked about a path, which refers to these others; its file has `size` bytes.
    pub(super) fn add(
        &mut self,
        path: HashPart,
        references: Vec<HashPart>,
        size: u64,
        file: T,
        now: Now,
    ) {
        self.active(now);
        if self.files.len() < FILES_MAX && !self.files.contains_key(&path) {
            self.files.insert(path, File { size, references, file });
            self.unordered = true;
        }
    }

    /// Nix asks for the file itself.
    pub(super) fn asked(&mut self, path: &HashPart, now: Now) {
        self.active(now);
        self.files.remove(path);
        self.waiting.retain(|(other, ..)| other != path);
    }

    /// Whether this file was to be fetched and Nix has not come for it yet.
    pub(super) fn is_ahead(&self, path: &HashPart) -> bool {
        self.waiting.iter().any(|(other, ..)| other == path)
    }

    /// The next file to fetch.
    pub(super) fn next(&mut self, now: Now) -> Next<T> {
        self.waiting.retain(|(.., since)| now.since(*since) < WANTED_WITHIN);
        if !self.is_active(now) {
            self.files.clear();
            self.order.clear();
            return Next::Nothing;
        }
        let waiting: u64 = self.waiting.iter().map(|(_, size, _)| size).sum();
        let Some((path, size)) = self.first() else { return Next::Nothing };
        if waiting.saturating_add(size) > self.budget {
            let oldest = self.waiting.iter().map(|(.., since)| *since).min();
            return oldest.map_or(Next::Nothing, |since| {
                Next::After(WANTED_WITHIN.saturating_sub(now.since(since)))
            });
        }
        let wait = self.line.wait(now);
        if !wait.is_zero() {
            return Next::After(wait);
        }
        let Some(file) = self.files.remove(&path) else { return Next::Nothing };
        self.line.book(size, now);
        self.waiting.push_back((path, size, now));
        Next::Fetch(file.file)
    }

    /// The file that Nix will come for first, and its size.
    fn first(&mut self) -> Option<(HashPart, u64)> {
        if std::mem::take(&mut self.unordered) {
            self.order = self.bottom_up();
            self.order.reverse();
        }
        loop {
            let path = *self.order.last()?;
            match self.files.get(&path) {
                Some(file) => return Some((path, file.size)),
                None => self.order.pop(),
            };
        }
    }

    /// All files, each after those that it refers to. Nix asks for narinfos from the top down and for NARs from the bottom
    /// up: it begins at the path whose name is the first, and goes on with the next when all is there that this one needs.
    fn bottom_up(&self) -> Vec<HashPart> {
        let mut all: Vec<&HashPart> = self.files.keys().collect();
        all.sort_unstable_by_key(|path| by_text(path));
        let (mut seen, mut order) = (HashSet::new(), Vec::with_capacity(all.len()));
        // What is left to do: a path, and whether those that it refers to are done.
        let mut stack = Vec::new();
        for path in all {
            stack.push((*path, false));
            while let Some((path, done)) = stack.pop() {
                if done {
                    order.push(path);
                    continue;
                }
                let Some(file) = self.files.get(&path).filter(|_| seen.insert(path)) else {
                    continue;
                };
                stack.push((path, true));
                let from = stack.len();
                stack.extend(file.references.iter().map(|reference| (*reference, false)));
                stack[from..].sort_unstable_by_key(|(path, _)| std::cmp::Reverse(by_text(path)));
            }
        }
        order
    }
}

/// Orders paths as their names do: the first letter of a hash part stands for its last bits.
fn by_text(path: &HashPart) -> [u8; 20] {
    let mut bytes = *path.as_bytes();
    bytes.reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(n: u8) -> HashPart {
        HashPart::from_bytes([n; 20])
    }

    fn at(millis: u64) -> Now {
        Now::from_start(Duration::from_millis(millis))
    }

    fn wishes(budget: u64, rate: Option<u64>, sizes: &[u64]) -> Wishes<u8> {
        let mut wishes = Wishes::new(budget, rate);
        for (n, size) in sizes.iter().enumerate() {
            wishes.add(path(n as u8), Vec::new(), *size, n as u8, at(0));
        }
        wishes
    }

    #[test]
    fn no_more_than_the_budget_waits_to_be_wanted() {
        let mut wishes = wishes(100, None, &[40, 50, 60, 10, 10]);
        assert_eq!(wishes.next(at(0)), Next::Fetch(0), "the first name first");
        assert_eq!(wishes.next(at(0)), Next::Fetch(1));
        assert_eq!(wishes.next(at(0)), Next::After(WANTED_WITHIN), "90 of 100 are used");
        // Nix comes for one: room for the next, and the others stay where they were.
        assert!(wishes.is_ahead(&path(1)));
        wishes.asked(&path(1), at(0));
        assert!(!wishes.is_ahead(&path(1)) && wishes.is_ahead(&path(0)));
        assert!(!wishes.is_ahead(&path(2)), "it has not been its turn");
        assert_eq!(wishes.next(at(0)), Next::Fetch(2));
        // What Nix asked for itself is not fetched ahead any more.
        wishes.asked(&path(3), at(0));
        wishes.asked(&path(2), at(0));
        assert_eq!(wishes.next(at(0)), Next::Fetch(4));
        assert_eq!(wishes.next(at(0)), Next::Nothing);
    }

    /// As Nix sorts what it copies: depth first, each after what it refers to, by name where there is a choice.
    #[test]
    fn the_order_is_the_one_in_which_nix_comes() {
        let mut wishes = Wishes::new(u64::MAX, None);
        // 9 stands on 3 and 7, 3 on 8 and on what is there already, 1 on itself, 5 and 6 on each other.
        let closure: [(u8, &[u8]); 8] = [
            (9, &[7, 3]),
            (3, &[8, 100]),
            (7, &[]),
            (8, &[]),
            (1, &[1]),
            (5, &[6]),
            (6, &[5]),
            (2, &[7]),
        ];
        for (n, references) in closure {
            let references = references.iter().copied().map(path).collect();
            wishes.add(path(n), references, 1, n, at(0));
        }
        let mut order = Vec::new();
        while let Next::Fetch(n) = wishes.next(at(0)) {
            order.push(n);
            if n == 7 {
                // It may come in between.
                wishes.add(path(4), vec![path(8)], 1, 4, at(0));
            }
        }
        assert_eq!(order, [1, 7, 2, 8, 3, 4, 6, 5, 9]);
        assert!(by_text(&path(1)) < by_text(&path(2)));
        let low = HashPart::from_bytes(std::array::from_fn(|n| 20 - n as u8));
        let high = HashPart::from_bytes(std::array::from_fn(|n| n as u8));
        assert!(by_text(&low) < by_text(&high) && low.to_string() < high.to_string());
    }

    #[test]
    fn what_nobody_comes_for_is_given_up() {
        let mut wishes = wishes(100, None, &[90, 80]);
        assert_eq!(wishes.next(at(0)), Next::Fetch(0));
        assert_eq!(wishes.next(at(5_000)), Next::After(Duration::from_secs(15)));
        // It takes something else meanwhile.
        wishes.active(at(19_000));
        assert_eq!(wishes.next(at(20_000)), Next::Fetch(1));
        // Nothing that is larger than the whole budget is ever fetched ahead.
        let mut large = self::wishes(100, None, &[101]);
        assert_eq!(large.next(at(0)), Next::Nothing);
        assert_eq!(self::wishes(0, None, &[1]).next(at(0)), Next::Nothing);
    }

    #[test]
    fn the_bandwidth_holds() {
        let mut wishes = wishes(u64::MAX, Some(1_000), &[500; 40]);
        let (mut now, mut fetched) = (at(1_000), 0);
        while now < at(6_000) {
            wishes.active(now);
            match wishes.next(now) {
                Next::Fetch(_) => fetched += 500,
                Next::After(wait) => now = now + wait,
                Next::Nothing => break,
            }
        }
        assert!((4_500..=6_000).contains(&fetched), "{fetched} bytes in five seconds");
    }

    /// As after `nix build --dry-run`, or when somebody stops a download.
    #[test]
    fn when_nix_has_stopped_nothing_more_is_wanted() {
        let mut wishes = wishes(100, None, &[10; 50]);
        for _ in 0..10 {
            assert!(matches!(wishes.next(at(0)), Next::Fetch(_)));
        }
        assert!(matches!(wishes.next(at(19_999)), Next::After(_)));
        assert!(wishes.is_active(at(19_999)) && !wishes.is_active(at(20_000)));
        assert_eq!(wishes.next(at(20_000)), Next::Nothing, "all of it is dropped");
        wishes.asked(&path(30), at(30_000));
        assert_eq!(wishes.next(at(30_000)), Next::Nothing, "and stays so");
        wishes.add(path(60), Vec::new(), 10, 60, at(30_000));
        assert_eq!(wishes.next(at(30_000)), Next::Fetch(60));
        assert!(!Wishes::<u8>::new(1, None).is_active(at(0)), "nobody has asked anything");
    }

    #[test]
    fn a_flood_of_questions_is_bounded() {
        let mut wishes = Wishes::new(1, None);
        for n in 0..3 * FILES_MAX as u32 {
            let mut hash = [0; 20];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            wishes.add(HashPart::from_bytes(hash), Vec::new(), 1, n, at(0));
            wishes.add(HashPart::from_bytes(hash), Vec::new(), 1, n, at(0));
        }
        assert_eq!(wishes.files.len(), FILES_MAX);
    }
}
