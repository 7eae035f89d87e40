//! Sends events to clients: the ring of recent events, the rooms with their members, the exact handoff at every join, and
//! the counts of each viewer.
//!
//! [`Fanout`] is synchronous and knows sockets only as [`Peer`]s, so that tests need no sockets. [`Hub`] puts it behind a
//! lock, and [`pump()`] drives it from the feed.

mod counts;
mod delivery;
mod fill;
mod handoff;
mod hub;
mod index;
#[cfg(test)]
mod model;
mod peer;
mod pressed;
mod pump;
mod ring;
mod rooms;

pub use crate::feed::Position;
pub use delivery::Sent;
pub use fill::{Fill, RingFill};
pub use handoff::{DashboardOffer, Entry, TaskOffer};
pub use hub::{Hub, HubStatus};
pub use peer::{Peer, PeerId, SendError};
pub use pressed::Relief;
pub use pump::pump;
pub use rooms::{Fanout, Limits};
