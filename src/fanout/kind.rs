//! What distinguishes one kind of thing that clients follow from another. [`Stream`](super::stream::Stream) has what all
//! kinds share.

use std::{fmt::Debug, hash::Hash};

use super::PeerId;
use crate::{
    feed::{Event, Position},
    task::{Timestamp, Viewer},
};

/// The events of one change that go out in one turn.
pub trait FanoutStep: Debug {
    /// Names a room.
    type Key: Clone + Debug + Eq + Hash;

    fn position(&self) -> Position;

    fn occurred_at(&self) -> Timestamp;

    /// The memory that the step needs, without its entries in the index of the ring.
    fn held_bytes(&self) -> usize;

    /// The rooms that the step concerns, each once. The fan-out sends the step to them in this order.
    fn keys(&self) -> impl Iterator<Item = Self::Key>;

    /// Returns whether joins of the room have to read the step, because it has events for the room or ends memberships.
    fn is_read_by_joins(&self, _key: &Self::Key) -> bool {
        true
    }
}

/// A kind of thing that clients follow, such as tasks. A value of this type holds what the fan-out knows of it beside the
/// rooms.
pub trait Kind: Debug {
    type Step: FanoutStep;

    /// What a room is about, as far as the fan-out knows it, at the position of the stream.
    type Subject: Clone + Debug;

    /// The name of the stream for [`Peer::refresh`](super::Peer::refresh).
    const NAME: &'static str;

    /// Returns the function that decides what a step does to each member of one of its rooms. Joins use it, too: see
    /// [`Mark::replay_after`].
    fn effects<'a>(step: &'a Self::Step, key: &'a Key<Self>) -> impl Fn(&Viewer, &Mark) -> Effect<'a>;

    /// Returns whether a step has the same events for both rooms. A client in both gets them once.
    fn have_same_events(one: &Key<Self>, other: &Key<Self>) -> bool;

    /// Returns whether a step that has the room's key is about the same thing as the room.
    fn concerns(_room: &Self::Subject, _step: &Self::Step) -> bool {
        true
    }

    /// Returns whether both rooms, which have the same key, are about the same thing.
    fn is_same(_room: &Self::Subject, _other: &Self::Subject) -> bool {
        true
    }

    /// Changes the room to what it is after this step. The steps between may be left out.
    fn update(_room: &mut Self::Subject, _step: &Self::Step) {}

    /// A step has been sent.
    fn applied(&mut self, _step: &Self::Step) {}

    /// A client has become a member of a room.
    fn entered(&mut self, _id: PeerId, _key: &Key<Self>) {}

    /// A client is no longer a member of a room.
    fn left(&mut self, _id: PeerId, _key: &Key<Self>) {}

    /// Changes may have been missed, and all rooms are empty.
    fn gap(&mut self) {}
}

/// The name of a room of this kind.
pub type Key<K> = <<K as Kind>::Step as FanoutStep>::Key;

/// What a step does to one member of a room.
#[derive(Debug)]
pub enum Effect<'a> {
    /// The member gets those of these events that are after its mark.
    Deliver(&'a [Event]),
    /// The membership ends with this event.
    End(&'a Event),
    /// The member has to enter the room again, with a state.
    EnterAgain,
}

/// The events that a member of a room has already.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The position of the state that the member got, or of its `since`. The member does not get the events up to it.
    pub at: Position,
    /// Up to this position, only the client's `since` indicates that the client was always allowed to be in the room.
    pub unproven: Position,
}

impl Mark {
    /// The mark of a member with a state of this position.
    pub fn of_state(at: Position) -> Self {
        Self { at, unproven: at }
    }

    /// The mark of a client that is about to enter. Nothing indicates that it was always allowed to be in the room.
    pub fn replay_after(at: Position) -> Self {
        Self { at, unproven: Position::end_of(u64::MAX) }
    }

    /// Returns whether the viewer was certainly allowed to be in the room at this position, if it was a member then.
    pub fn proves(&self, position: Position) -> bool {
        position <= self.at || position > self.unproven
    }
}
