//! A limit on what comes in.

use std::sync::Arc;

use haulout_mesh::Line;
use haulout_swarm::PeerId;
use haulout_swarm::rate::Urgency;

/// Who takes bytes waits here before it takes more: its source feels that. What somebody waits for goes first.
#[derive(Debug)]
pub(crate) struct Intake {
    line: Arc<Line>,
}

/// All that comes in shares one line alike, wherever it comes from.
const EVERYBODY: PeerId = PeerId::from_bytes([0; 32]);

impl Intake {
    /// Without a limit.
    pub(crate) fn new() -> Self {
        Self { line: Line::new(None) }
    }

    /// Bytes per second; `None`: no limit.
    pub(crate) fn set(&self, bytes_per_second: Option<u64>) {
        self.line.set(bytes_per_second);
    }

    /// Waits until bytes that came may be taken. True if there is a limit.
    pub(crate) async fn took(&self, bytes: u64, urgency: Urgency) -> bool {
        self.line.turn(EVERYBODY, urgency, bytes).await
    }
}
