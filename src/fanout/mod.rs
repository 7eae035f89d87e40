//! Sends events to clients. [`Clients`] are the connected clients with their queues. A [`Stream`] has the rooms,
//! the ring of recent events and the exact handoff at every join for one kind of thing that clients follow. [`Tasks`] is the
//! kind of tasks: their rooms, the dashboards, and the counts of each viewer.
//!
//! [`Fanout`] has the clients and the stream of each kind. It is synchronous and knows sockets only as [`Peer`]s, so that tests
//! need no sockets. [`Hub`] puts it behind a lock, and [`pump()`] drives a stream from the feed.

mod clients;
#[allow(clippy::module_inception, reason = "the clients and all streams together")]
mod fanout;
mod fill;
mod handoff;
mod hub;
mod index;
mod kind;
#[cfg(test)]
mod model;
mod outbox;
mod peer;
mod pressed;
mod pump;
mod ring;
mod stream;
mod tasks;

pub use crate::feed::Position;
pub use clients::Clients;
pub use fanout::{Fanout, Limits};
pub use fill::{Fill, RingFill};
pub use handoff::Entry;
pub use hub::{Following, Hub, StreamStatus};
pub use kind::{Effect, Key, Kind, Mark, Step};
pub use outbox::Sent;
pub use peer::{Peer, PeerId, SendError};
pub use pressed::Relief;
pub use pump::pump;
pub use stream::Stream;
pub use tasks::{DashboardOffer, TaskOffer, Tasks};
