//! One download per site: what must come from outside is fetched by one agent and relayed to all.
//!
//! A *site object* is anything no peer has yet: an upstream's compressed NAR, its narinfo, a Walrus sliver, a blob's
//! metadata, an archive's proof. Every agent knows it by the same [`SiteKey`]. Large ones are cut into segments
//! ([`Cut`]), and each segment has its own *home*, ranked by rendezvous hashing over the agents that are willing to fetch
//! ([`Homes`]). Who wants a segment asks its home, which fetches it once and relays it **while** it arrives.
//!
//! | part | the question it answers |
//! | --- | --- |
//! | [`SiteKey`], [`SegmentKey`], [`Cut`] | what is it, and where are its segments |
//! | [`Homes`], [`Standing`] | whose turn is it |
//! | [`Follow`] | one segment on one agent: whom to ask, when to take over, when to go outside oneself |
//! | [`Duty`] | one agent as a home: how much it does for others at once |
//! | [`authorship`] | who made a piece that turned out to be wrong |
//! | [`Worth`], [`victims`] | which of the pieces kept for others go first |
//! | [`Fellows`] | of those that fetch at the same time: who is of use |
//!
//! Rules that keep outside fetches at about one per segment without any election:
//!
//! * An agent that **wants** a segment asks its home first. An agent that is **asked** for a segment it knows nothing of
//!   fetches it from outside.
//! * A machine that has just come is the home of pieces that others have fetched. Before it goes outside it asks those whose
//!   turn it was before it came ([`Turn::elder`]), "only what you *have*". Who is asked so gives what is complete, or what it is itself getting from outside, and nothing else: requests never travel in
//!   circles.
//! * An agent that is asked for a segment it is itself following relays what it gets. If it follows the very asker, the
//!   two had different views of who is there: it goes outside at once ([`Follow::relied_on_by`]).
//! * Everybody keeps what arrived for a while, complete or not, so that the next in the ranking goes on where a home
//!   stopped, and a machine that joins in the middle gets what is there already.
//! * What others on the network *hold* goes the same way while several fetch it: the holders are the outside, and the homes are
//!   those that fetch from them now ([`SiteKind::Nar`]). So one holder gives each byte about once, and the fetchers give it to
//!   each other.
//! * A home that waits for a slow outside says so (a *waiting* frame). So followers tell a slow upstream, where taking
//!   over would help nobody, from a dead home.
//! * When homes fail one after the other, followers do not all go outside at once: after three failures the first eight in
//!   the ranking may, after four the first sixteen, and so on. A home that is silent says nothing about the outside: it counts
//!   half, and whom to ask next is ranked anew.

mod blame;
mod duty;
mod fellows;
mod follow;
mod homes;
mod keep;
mod key;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// How long a piece from outside is kept for machines that come later: the start of a working day is not the same minute for
/// all. By then most have it in their stores.
pub const KEPT_FOR: Duration = Duration::from_secs(120);

/// Agents ranked for one segment: those that are asked, and those among which an agent looks for its own place when homes fail.
pub const RANKED_MAX: usize = 32;

pub use blame::{Authorship, Away, authorship};
pub use duty::{Duty, DutyLimits, Verdict};
pub use fellows::{
    Fellows, HOLDERS_ENOUGH, HOLDERS_FEW, REFUSALS_MAX, REST, STRIKES_MAX, few_hold,
};
pub use follow::{Attempt, End, Follow, FollowConfig, Origin, Step, Why};
pub use homes::{Homes, OUTSIDES_MAX, Standing, Turn};
pub use keep::{Piece, Worth, victims};
pub use key::{
    Cut, DESCRIPTOR_MAX, DOCUMENT_MAX, NAR_SEGMENT_BYTES, OBJECT_MAX, OutsideId, SEGMENT_BYTES,
    SegmentKey, SiteKey, SiteKind,
};
