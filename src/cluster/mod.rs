//! Nodes exchange data through Redis: the sessions and lost dashboards of each user, disconnected users, and the list
//! of nodes. They never exchange task events, because every node gets those from the store itself.
//!
//! The edges use [`Cluster`]. Each of its calls takes effect on this node at once, and [`Membership`] sends the change
//! to Redis when it can. A client never waits for Redis, except for one query with a short timeout.

mod config;
mod handle;
mod link;
mod lost;
mod membership;
mod probe;
mod pubsub_message;
mod scripts;
mod session_change;

pub use config::ClusterConfig;
pub use handle::{Cluster, NodeCommand, NodeReport};
pub use link::LinkError;
pub use membership::Membership;
pub use probe::{RedisProbe, probe};
