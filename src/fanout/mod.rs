//! Sends events to clients. [`Clients`] are the connected clients with their queues. A [`Stream`] has the rooms,
//! the ring of recent events and the exact handoff at every join for one kind of thing that clients follow. [`Tasks`] is the
//! kind of tasks: their rooms, the dashboards, and the counts of each viewer.
//!
//! [`Fanout`] has the clients and the stream of each kind. It is synchronous and knows sockets only as [`Peer`]s, so that tests
//! need no sockets. [`Hub`] puts it behind a lock, and [`run_feed_loop()`] drives a stream from the feed.

mod clients;
#[allow(clippy::module_inception, reason = "the clients and all streams together")]
mod fanout;
mod feed_loop;
mod handoff;
mod hub;
mod index;
mod kind;
mod members;
#[cfg(test)]
mod model;
mod outbox;
mod peer;
mod ring;
mod sizes;
mod slow_clients;
mod stream;
mod tasks;

pub use crate::feed::Position;
pub use clients::Clients;
pub use fanout::{Fanout, Limits};
pub use feed_loop::run_feed_loop;
pub use handoff::EnterOutcome;
pub use hub::{FeedState, FeedStatus, Hub};
pub use kind::{Effect, FanoutStep, Key, Kind, Mark};
pub use outbox::Sent;
pub use peer::{Peer, PeerId, SendError};
pub use sizes::{RingSizes, Sizes};
pub use slow_clients::SpaceReports;
pub use stream::Stream;
pub use tasks::{DashboardOffer, TaskOffer, Tasks};
