//! How much the fan-out holds, for whoever watches it.

use std::time::Duration;

use super::{Fanout, rooms::Dashboard};

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
    /// Looks at every peer once.
    pub fn fill(&self) -> Fill {
        let mut fill = Fill {
            task_rooms: self.rooms.len(),
            dashboards: self.dashboards_of_org.len(),
            behind: self.sending.pressed.len(),
            ring: self.ring.fill(),
            ..Fill::default()
        };
        for joined in self.peers.values() {
            fill.task_members += joined.tasks.len();
            fill.dashboard_members += usize::from(matches!(joined.dashboard, Dashboard::In { .. }));
            fill.packets_behind += joined.outbox.overflow.len();
        }
        fill
    }
}
