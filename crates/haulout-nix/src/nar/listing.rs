//! The `.ls` listing of a NAR as JSON.

use super::{Layout, layout::ListingNode};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::cell::Cell;

/// What a NAR holds and where, as served under `<hash>.ls`. Serialize it, for example with
/// `serde_json::to_vec`; nothing is built in memory. Names and targets that are not UTF-8 (which
/// JSON cannot hold) have the replacement character in place of the odd bytes.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'l> {
    layout: &'l Layout,
}

impl<'l> Listing<'l> {
    pub(super) const fn new(layout: &'l Layout) -> Self {
        Self { layout }
    }
}

impl Serialize for Listing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("version", &1)?;
        let next = Cell::new(0);
        map.serialize_entry("root", &NodeAtNext { layout: self.layout, next: &next })?;
        map.end()
    }
}

/// Serializes the node at index `next`, leaving there the index of the node after it and all
/// that is below it. Recursion is bounded by the depth of the tree.
struct NodeAtNext<'l> {
    layout: &'l Layout,
    next: &'l Cell<usize>,
}

impl Serialize for NodeAtNext<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = self.next.get();
        self.next.set(index + 1);
        let mut map = serializer.serialize_map(None)?;
        match self.layout.listing_node(index) {
            ListingNode::Directory => {
                map.serialize_entry("type", "directory")?;
                map.serialize_entry("entries", &EntriesOf { node: self, index })?;
            }
            ListingNode::Regular { size, executable, nar_offset } => {
                map.serialize_entry("type", "regular")?;
                map.serialize_entry("size", &size)?;
                if executable {
                    map.serialize_entry("executable", &true)?;
                }
                map.serialize_entry("narOffset", &nar_offset)?;
            }
            ListingNode::Symlink { target } => {
                map.serialize_entry("type", "symlink")?;
                map.serialize_entry("target", &String::from_utf8_lossy(target))?;
            }
        }
        map.end()
    }
}

struct EntriesOf<'l> {
    node: &'l NodeAtNext<'l>,
    index: usize,
}

impl Serialize for EntriesOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        while let Some(name) = self.node.layout.entry_name(self.index, self.node.next.get()) {
            map.serialize_entry(&String::from_utf8_lossy(name), self.node)?;
        }
        map.end()
    }
}
