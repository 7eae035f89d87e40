//! What nodes tell each other through Redis: sessions and lost dashboards of each user, disconnected users, and which
//! nodes there are. Never a task event: those come to every node from the store itself.
//!
//! [`Cluster`] is what the edges use. Whatever they tell it takes effect here at once; [`Membership`] tells Redis, when it
//! can. Nothing that a client waits for waits for Redis, but one question with a short time limit.

mod backoff;
mod config;
mod fact;
mod handle;
mod link;
mod lost;
mod membership;
mod probe;
mod scripts;
mod word;

pub use config::ClusterConfig;
pub use handle::{Cluster, NodeReport, Order};
pub use link::LinkError;
pub use membership::Membership;
pub use probe::{RedisProbe, probe};
