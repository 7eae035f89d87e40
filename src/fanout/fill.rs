//! How much the fan-out holds, for whoever watches it.

use std::time::Duration;

use super::{Fanout, rooms::Joined};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Tasks that somebody is in the room of.
    pub task_rooms: usize,
    pub task_members: usize,
    /// Organisations that somebody has the dashboard of.
    pub dashboards: usize,
    pub dashboard_members: usize,
    /// Clients whose queue is full, and what waits beside their queues.
    pub behind: usize,
    pub packets_behind: usize,
    pub ring: RingFill,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFill {
    pub bytes: usize,
    pub max_bytes: usize,
    pub steps: usize,
    /// From the oldest change to the newest.
    pub span: Duration,
}

impl<P> Fanout<P> {
    /// Looks at those that are behind once.
    pub fn fill(&self) -> Fill {
        let overflow = |id| self.peers.get(&id).map_or(0, |joined: &Joined<P>| joined.outbox.overflow.len());
        Fill {
            task_rooms: self.rooms.len(),
            task_members: self.joined_tasks,
            dashboards: self.dashboards_of_org.len(),
            dashboard_members: self.in_dashboard,
            behind: self.sending.pressed.len(),
            packets_behind: self.sending.pressed.ids().map(overflow).sum(),
            ring: self.ring.fill(),
        }
    }
}
