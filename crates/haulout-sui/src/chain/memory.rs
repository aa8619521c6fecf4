//! The committees that were read last, on disk: for a start at which no full node answers.
//!
//! They are as unproven as when they were read, and a wrong or old committee can only stall: nodes prove
//! the keys in it, and what they give is checked against blob ids. A damaged file counts as none.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use haulout_walrus::committee::{Committee, CommitteeView, EpochState, StorageNode};
use redstuff::{ShardCount, ShardIndex};
use serde::{Deserialize, Serialize};

use crate::{ObjectId, files};

/// Bytes of the file: three committees of the largest size have less.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The layout of the file.
const VERSION: u16 = 1;

/// Where committees are kept.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    system: ObjectId,
    /// What the file is known to say.
    kept: Mutex<Option<CommitteeView>>,
    /// When full nodes failed last while nothing else was known.
    pub(super) failed: Mutex<Option<Instant>>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u16,
    system: ObjectId,
    epoch: u32,
    state: (u8, u64),
    committees: [Option<Members>; 3],
}

#[derive(Serialize, Deserialize)]
struct Members {
    epoch: u32,
    shards: u16,
    nodes: Vec<Member>,
}

#[derive(Serialize, Deserialize)]
struct Member {
    id: ObjectId,
    name: String,
    address: String,
    network_key: Vec<u8>,
    bls_key: Vec<u8>,
    shards: Vec<u16>,
}

impl Memory {
    /// Below a state directory, for the network with this System object.
    pub(super) fn new(state: &Path, system: ObjectId) -> Self {
        let path = state.join("walrus").join(format!("{system}.committees"));
        Self { path, system, kept: Mutex::new(None), failed: Mutex::new(None) }
    }

    /// Writes a view, if it is another than the one that is there. What cannot be written is only missed
    /// at a start without a full node.
    pub(super) fn keep(&self, view: &CommitteeView) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref() == Some(view) {
            return;
        }
        let file = File {
            version: VERSION,
            system: self.system,
            epoch: view.epoch,
            state: match view.state {
                EpochState::ChangeSync(weight) => (0, weight.into()),
                EpochState::ChangeDone(at) => (1, at),
                EpochState::NextParamsSelected(at) => (2, at),
            },
            committees: [Some(&view.current), view.previous.as_ref(), view.next.as_ref()]
                .map(|committee| committee.map(members)),
        };
        let written = bcs::to_bytes(&file)
            .map_err(std::io::Error::other)
            .and_then(|bytes| files::replace(&self.path, &bytes));
        match written {
            Ok(()) => *kept = Some(view.clone()),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "no committee is kept")
            }
        }
    }

    /// What was read last, by this process or an earlier one.
    pub(super) fn load(&self) -> Option<CommitteeView> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            let bytes = files::read(&self.path, FILE_BYTES_MAX).ok().flatten()?;
            *kept = self.parse(&bytes);
        }
        kept.clone()
    }

    fn parse(&self, bytes: &[u8]) -> Option<CommitteeView> {
        let file: File = bcs::from_bytes(bytes).ok()?;
        if file.version != VERSION || file.system != self.system {
            return None;
        }
        let [current, previous, next] = file.committees;
        let committee = |members: Option<Members>| members.map(committee).transpose();
        Some(CommitteeView {
            epoch: file.epoch,
            state: match file.state {
                (0, weight) => EpochState::ChangeSync(weight.try_into().ok()?),
                (1, at) => EpochState::ChangeDone(at),
                (2, at) => EpochState::NextParamsSelected(at),
                _ => return None,
            },
            current: committee(current).ok()??,
            previous: committee(previous).ok()?,
            next: committee(next).ok()?,
        })
    }
}

fn members(of: &Committee) -> Members {
    let member = |node: &StorageNode| Member {
        id: node.node_id,
        name: node.name.clone(),
        address: node.address.clone(),
        network_key: node.network_public_key.clone(),
        bls_key: node.bls_public_key.to_vec(),
        shards: node.shards.iter().map(|shard| shard.0).collect(),
    };
    Members {
        epoch: of.epoch,
        shards: of.n_shards.get(),
        nodes: of.members.iter().map(member).collect(),
    }
}

/// With all checks of a committee that was just read.
fn committee(of: Members) -> Result<Committee, ()> {
    let node = |member: Member| {
        Ok(StorageNode {
            node_id: member.id,
            name: member.name,
            address: member.address,
            network_public_key: member.network_key,
            bls_public_key: member.bls_key.try_into().map_err(drop)?,
            shards: member.shards.into_iter().map(ShardIndex).collect(),
        })
    };
    let nodes = of.nodes.into_iter().map(node).collect::<Result<Vec<_>, ()>>()?;
    Committee::new(of.epoch, ShardCount::new(of.shards).map_err(drop)?, nodes).map_err(drop)
}
