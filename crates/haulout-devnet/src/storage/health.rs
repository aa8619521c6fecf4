//! A node's account of itself.

use std::time::Duration;

use data_encoding::BASE64;
use serde::Serialize;

use super::node::Node;

/// The data of `GET /v1/health`, fields in the order of the real service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    uptime: Uptime,
    epoch: u32,
    public_key: String,
    node_status: &'static str,
    event_progress: EventProgress,
    shard_summary: ShardSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_detail: Option<ShardDetail>,
}

#[derive(Debug, Serialize)]
struct Uptime {
    secs: u64,
    nanos: u32,
}

/// Nothing is ever behind: nodes ask the chain at every request.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct EventProgress {
    persisted: u64,
    pending: u64,
    highest_finished_event_index: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardSummary {
    owned: usize,
    owned_shard_status: OwnedShardStatus,
    read_only: usize,
}

#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct OwnedShardStatus {
    unknown: usize,
    ready: usize,
    in_transfer: usize,
    in_recovery: usize,
}

#[derive(Debug, Serialize)]
struct ShardDetail {
    owned: Vec<ShardStatus>,
    other: Vec<ShardStatus>,
}

#[derive(Debug, Serialize)]
struct ShardStatus {
    shard: u16,
    status: &'static str,
}

pub(crate) fn report(node: &Node, detailed: bool, uptime: Duration) -> Health {
    let duty = node.duty();
    let lost: Vec<_> = duty.before.iter().filter(|s| !duty.shards.contains(s)).collect();
    let status = |shard: u16, status| ShardStatus { shard, status };
    Health {
        uptime: Uptime { secs: uptime.as_secs(), nanos: uptime.subsec_nanos() },
        epoch: duty.epoch,
        public_key: BASE64.encode(&node.identity.bls().public_key().to_bytes()),
        node_status: "Active",
        event_progress: EventProgress::default(),
        shard_summary: ShardSummary {
            owned: duty.shards.len(),
            owned_shard_status: OwnedShardStatus {
                ready: duty.shards.len(),
                ..OwnedShardStatus::default()
            },
            read_only: lost.len(),
        },
        shard_detail: detailed.then(|| ShardDetail {
            owned: duty.shards.iter().map(|shard| status(shard.0, "ready")).collect(),
            other: lost.iter().map(|shard| status(shard.0, "readOnly")).collect(),
        }),
    }
}
