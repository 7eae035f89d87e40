//! The sizes of what the fan-out holds, for metrics.

use std::time::Duration;

use super::{Fanout, Peer, tasks::Tasks};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Tasks whose room has a member.
    pub task_rooms: usize,
    pub task_members: usize,
    /// Organisations whose dashboard has a member.
    pub dashboards: usize,
    pub dashboard_members: usize,
    /// Clients whose queue is full. `messages_behind` counts the messages that wait beside their queues.
    pub behind: usize,
    pub messages_behind: usize,
    pub ring: RingSizes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingSizes {
    pub bytes: usize,
    pub max_bytes: usize,
    pub steps: usize,
    /// The time from the oldest change to the newest.
    pub span: Duration,
}

impl<P: Peer> Fanout<P> {
    /// Visits only the clients that are behind, each once.
    pub fn sizes(&self) -> Sizes {
        let (behind, messages_behind) = self.clients.behind();
        let Tasks { counts, dashboards, task_members } = &self.tasks.kind;
        Sizes {
            // Each room of dashboards has counts.
            task_rooms: self.tasks.rooms.len() - counts.orgs() - counts.users(),
            task_members: *task_members,
            dashboards: counts.orgs(),
            dashboard_members: dashboards.len(),
            behind,
            messages_behind,
            ring: self.tasks.ring.sizes(),
        }
    }
}
