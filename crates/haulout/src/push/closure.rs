//! Which paths to push, in an order in which every path comes after those it refers to.

use std::collections::HashSet;

use haulout_nix::db::Database;
use haulout_nix::{HashPart, PathInfo};

use crate::error::{Context, Failure, Outcome};

/// Most paths of one push: several whole systems.
const PATHS_MAX: usize = 1_000_000;

/// The infos of `roots`, with `whole` also of everything they refer to, references first.
pub(super) fn ordered(
    database: &Database,
    roots: &[HashPart],
    whole: bool,
) -> Outcome<Vec<PathInfo>> {
    let mut walk = Walk { database, whole, seen: HashSet::new(), done: Vec::new() };
    for root in roots {
        walk.visit(*root)?;
    }
    Ok(walk.done)
}

struct Walk<'d> {
    database: &'d Database,
    whole: bool,
    seen: HashSet<HashPart>,
    done: Vec<PathInfo>,
}

impl Walk<'_> {
    /// Depth first, with a stack of its own: closures can be thousands deep.
    fn visit(&mut self, root: HashPart) -> Outcome<()> {
        let mut stack: Vec<(PathInfo, usize)> = Vec::new();
        stack.extend(self.enter(root)?.map(|info| (info, 0)));
        while let Some((info, next)) = stack.last_mut() {
            let reference = info.references.get(*next).map(|path| path.hash_part());
            *next += 1;
            match reference {
                Some(hash) if self.whole => {
                    let entered = self.enter(hash)?;
                    stack.extend(entered.map(|info| (info, 0)));
                }
                Some(_) => {}
                None => self.done.extend(stack.pop().map(|(info, _)| info)),
            }
        }
        Ok(())
    }

    /// The info of a path seen for the first time.
    fn enter(&mut self, hash: HashPart) -> Outcome<Option<PathInfo>> {
        if !self.seen.insert(hash) {
            return Ok(None);
        }
        if self.seen.len() > PATHS_MAX {
            return Err(Failure::new(format!("more than {PATHS_MAX} paths at once")));
        }
        let info = self
            .database
            .path_info(&hash)
            .context(|| "cannot read the store database".to_owned())?;
        info.map(Some).ok_or_else(|| {
            Failure::new(format!("{hash} is not a valid path of this store"))
                .hint("`nix-store --query --valid` asks the same of Nix")
        })
    }
}
