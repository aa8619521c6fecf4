//! What happens, and what is under way.

use haulout_swarm::plan::RequestId;
use haulout_swarm::site::End;

use crate::agent::Try;
use crate::fleet::Blow;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Start(u32),
    /// The agent does what it can.
    GoOn(u32),
    Tick(u32),
    Blow(u32, Blow),
    /// A peer that vanished is given up by all.
    Forgotten(u32, u32),
    /// The halves of the network lose (or find) each other.
    Sides(bool),
    Announce(u32),
    /// What an agent has kept for too long goes.
    Sweep(u32),
    /// A request for a piece.
    Asked {
        home: u32,
        from: u32,
        piece: u32,
        /// Only what is there is wanted.
        held: bool,
        attempt: Try,
        at: u32,
    },
    /// The outside begins to answer.
    Answered {
        to: u32,
        piece: u32,
        attempt: Try,
    },
    /// The answer ends without all bytes.
    Over {
        to: u32,
        piece: u32,
        attempt: Try,
        end: End,
    },
    /// A follower has no more use for an answer.
    Stop {
        home: u32,
        from: u32,
        piece: u32,
        attempt: Try,
    },
    /// A question for path infos, the answer, and the moment when it is late.
    InfosAsked {
        holder: u32,
        from: u32,
        path: u32,
    },
    InfosTold {
        to: u32,
        holder: u32,
        path: u32,
        yes: bool,
    },
    InfosLate {
        to: u32,
        holder: u32,
        path: u32,
        /// Even one that is alive has had its time.
        last: bool,
    },
    /// A narinfo straight from outside.
    InfoOutside {
        to: u32,
        path: u32,
    },
    /// An agent may have ceased to fetch.
    Lapse(u32),
    /// A holder is asked for the rest of a piece of a NAR.
    PartAsked {
        holder: u32,
        from: u32,
        piece: u32,
        attempt: Try,
        at: u32,
    },
    NarAsked {
        holder: u32,
        from: u32,
        path: u32,
        epoch: u32,
        id: RequestId,
        len: u32,
    },
    Parcel {
        parcel: Parcel,
        line: u8,
    },
    Arrived(Parcel),
}

/// Bytes under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) bytes: u32,
    pub(crate) what: Cargo,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Cargo {
    /// Bytes `from..upto` of a piece.
    Piece { piece: u32, attempt: Try, from: u32, upto: u32, bad: bool },
    /// The answer to a request for part of a NAR.
    Nar { path: u32, epoch: u32, id: RequestId, answer: NarAnswer },
    /// The rest of a piece of a NAR, from byte `from`, from a holder.
    Part { piece: u32, attempt: Try, from: u32, answer: NarAnswer },
    /// A segment straight from outside, to compare.
    Compared { path: u32, epoch: u32 },
}

/// What a peer answers that is asked for part of a NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NarAnswer {
    Bytes { bad: bool },
    No,
}

/// The agent whose state an event changes most.
pub(crate) const fn touched(event: &Event) -> Option<u32> {
    match event {
        Event::Start(n) | Event::Tick(n) | Event::Announce(n) => Some(*n),
        Event::Asked { home: n, .. } | Event::Stop { home: n, .. } => Some(*n),
        Event::Answered { to: n, .. } | Event::Over { to: n, .. } => Some(*n),
        Event::Arrived(parcel) => Some(parcel.to),
        _ => None,
    }
}
