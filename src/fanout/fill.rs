//! The sizes of what the fan-out holds, for metrics.

use std::time::Duration;

use super::{Fanout, rooms::Joined};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Tasks whose room has a member.
    pub task_rooms: usize,
    pub task_members: usize,
    /// Organisations whose dashboard has a member.
    pub dashboards: usize,
    pub dashboard_members: usize,
    /// Clients whose queue is full. `messages_behind` counts the messages that wait beside their queues.
    pub behind: usize,
    pub messages_behind: usize,
    pub ring: RingFill,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFill {
    pub bytes: usize,
    pub max_bytes: usize,
    pub steps: usize,
    /// The time from the oldest change to the newest.
    pub span: Duration,
}

impl<P> Fanout<P> {
    /// Visits only the peers that are behind, each once.
    pub fn fill(&self) -> Fill {
        let overflow = |id| self.peers.get(&id).map_or(0, |joined: &Joined<P>| joined.outbox.overflow.len());
        Fill {
            task_rooms: self.rooms.len(),
            task_members: self.joined_tasks,
            dashboards: self.dashboards_of_org.len(),
            dashboard_members: self.in_dashboard,
            behind: self.sending.pressed.len(),
            messages_behind: self.sending.pressed.ids().map(overflow).sum(),
            ring: self.ring.fill(),
        }
    }
}
