//! A large NAR from one source at a time, without a tree: the hash of the
//! whole decides at the end. A source that fails is replaced at the same
//! offset.

use haulout_mesh::{NarKey, NarTree};
use haulout_swarm::{Fault, PeerId};

use super::Shared;
use super::feed::{Feed, FeedError};
use super::gate::GROUP;
use super::large::MULTI_MIN;
use super::ring::CutReason;
use super::roster::Roster;
use super::sink::Sink;

/// How often one source looks whether there are more, in bytes received.
const LOOK_BYTES: u64 = 16 << 20;

/// How far one source at a time got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Everything is there.
    Full,
    /// Others have appeared that could help.
    MoreSources,
}

/// A NAR fetched from one source at a time.
#[derive(Default)]
pub(crate) struct Single {
    suppliers: Vec<PeerId>,
    /// Where sources were last looked for.
    looked: u64,
    /// Peers that were asked for a tree; asking again would not help.
    pub(crate) asked: Vec<PeerId>,
}

impl Single {
    /// Fetches until the end or until others could help.
    pub(crate) async fn run(
        &mut self,
        shared: &Shared,
        key: NarKey,
        roster: &mut Roster,
        sink: &mut Sink,
    ) -> Result<Until, CutReason> {
        while !sink.is_full() {
            let Some(peer) = roster.best().await else { return Err(CutReason::NoSource) };
            if sink.at() > 0 {
                shared.stats.replaced.one();
            }
            roster.using(peer);
            let before = sink.at();
            let result = self.continue_from(shared, key, peer, roster, sink).await;
            if sink.at() > before && !self.suppliers.contains(&peer) {
                self.suppliers.push(peer);
            }
            match result {
                Ok(Until::Full) => {}
                Ok(Until::MoreSources) => return Ok(Until::MoreSources),
                Err(error) => roster.failed(peer, &error),
            }
        }
        Ok(Until::Full)
    }

    async fn continue_from(
        &mut self,
        shared: &Shared,
        key: NarKey,
        peer: PeerId,
        roster: &Roster,
        sink: &mut Sink,
    ) -> Result<Until, FeedError> {
        debug_assert!(sink.at().is_multiple_of(GROUP));
        let mut feed = Feed::open(&*shared.peers, peer, key, sink.at()..key.nar_size, None).await?;
        while let Some(good) = feed.next().await? {
            for checked in good {
                shared.took(checked.bytes.len() as u64).await;
                sink.take(checked).await;
            }
            if sink.at() >= self.looked + LOOK_BYTES {
                self.looked = sink.at();
                let usable = roster.usable();
                let new = usable.iter().any(|other| *other != peer && !self.asked.contains(other));
                if new && key.nar_size - sink.at() > MULTI_MIN {
                    return Ok(Until::MoreSources);
                }
            }
        }
        Ok(Until::Full)
    }

    /// Confirms the hash, or says who is to blame that it does not hold.
    pub(crate) async fn finish(
        &self,
        shared: &Shared,
        key: NarKey,
        sink: Sink,
    ) -> Result<Option<NarTree>, CutReason> {
        let finished = sink.finish().await;
        if finished == Err(CutReason::WrongHash) {
            match self.suppliers.as_slice() {
                [liar] => shared.convict(*liar, key, Fault::WrongContent),
                _ => self.distrust(shared, key),
            }
        }
        finished
    }

    /// One of several suppliers was wrong: none of them may give this NAR
    /// again, but who is to blame is not known.
    pub(crate) fn distrust(&self, shared: &Shared, key: NarKey) {
        for peer in &self.suppliers {
            shared.distrust.add(*peer, key.nar_hash);
        }
    }
}
