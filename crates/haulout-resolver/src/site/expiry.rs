//! What nobody has used for a while goes: an idle agent holds nothing.

use std::sync::Weak;
use std::time::Duration;

use haulout_swarm::site::{KEPT_FOR, SiteKind};
use tokio::time::{Instant, sleep};

use super::{Inner, lock};

/// The same for a piece of a NAR that others here hold anyway: it is for those in step.
const NARS_KEPT_FOR: Duration = Duration::from_secs(20);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Drops what has been idle for long, as long as the engine lives.
pub(super) async fn sweep(site: Weak<Inner>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(site) = site.upgrade() else { return };
        site.drop_idle(Instant::now());
    }
}

impl Inner {
    fn drop_idle(&self, now: Instant) {
        let mut segments = lock(&self.segments);
        segments.retain(|key, segment| {
            let limit = match key.object.kind {
                SiteKind::Nar => NARS_KEPT_FOR,
                _ => KEPT_FOR,
            };
            segment.idle_since().is_none_or(|since| now.duration_since(since) < limit)
        });
        if segments.is_empty() {
            segments.shrink_to_fit();
        }
    }
}
