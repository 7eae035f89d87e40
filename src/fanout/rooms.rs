//! The members of each room, and the events that each step sends to them.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    feed::{Event, Position, Step},
    shrinking_map::{ShrinkingMap, ShrinkingSet},
    task::{Access, Counts, OrgId, TaskId, UserId, Viewer},
};

use super::{
    Peer, PeerId,
    counts::CountBook,
    delivery::{Outbox, Sending},
    ring::Ring,
};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub ring_bytes: usize,
    /// A client gets a state instead of a replay that has more events.
    pub replay_events: usize,
    /// A client is disconnected if its queue is full and it has accepted nothing for this long.
    pub patience: Duration,
    /// A client is also disconnected if more messages than this wait beside its queue.
    pub behind_messages: usize,
}

/// A feed that has reported nothing for this long may be behind the store.
const CURRENT: Duration = Duration::from_secs(1);

/// The fan-out of one node. Every method is one turn: nothing else is sent during the call.
#[derive(Debug)]
pub struct Fanout<P> {
    pub(super) limits: Limits,
    /// Everything up to this position has been sent to the members of the rooms.
    pub(super) position: Position,
    /// When the feed last reported a position.
    heard: Option<Instant>,
    pub(super) ring: Ring,
    pub(super) peers: ShrinkingMap<PeerId, Joined<P>>,
    pub(super) rooms: ShrinkingMap<TaskId, Room>,
    pub(super) dashboards_of_org: ShrinkingMap<OrgId, ShrinkingSet<PeerId>>,
    pub(super) dashboards_of_user: ShrinkingMap<UserId, ShrinkingSet<PeerId>>,
    pub(super) counts: CountBook,
    pub(super) sending: Sending<P>,
    /// How many tasks all peers have joined. `in_dashboard` is the number of peers in a dashboard. Every join and leave updates
    /// both, so that a scrape does not visit every peer under the lock.
    pub(super) joined_tasks: usize,
    pub(super) in_dashboard: usize,
}

/// The room of a task. Empty rooms are removed.
#[derive(Debug)]
pub(super) struct Room {
    /// The document that the members follow. Another document may have an id with the same text; members do not get its
    /// changes.
    pub document: TaskId,
    /// The access to the task at the position of the fan-out.
    pub access: Option<Access>,
    pub members: ShrinkingMap<PeerId, Mark>,
}

/// The events that a member of a task's room has already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The position of the state that the member got, or of its `since`. The member does not get the events up to it.
    pub at: Position,
    /// Up to this position, only the client's `since` indicates that the client could always see the task.
    pub unproven: Position,
}

/// A peer with the rooms that it has asked for.
#[derive(Debug)]
pub(super) struct Joined<P> {
    pub outbox: Outbox<P>,
    pub viewer: Viewer,
    pub tasks: ShrinkingSet<TaskId>,
    pub dashboard: Dashboard,
}

#[derive(Debug, PartialEq)]
pub(super) enum Dashboard {
    Out,
    /// The peer has to enter the dashboard again, because it may have missed events since its last state.
    Wanted,
    In {
        /// The position of the state that the peer got, or of its `since`.
        mark: Position,
        /// The counts that the client has. `None` means that they are not known.
        known: Option<Counts>,
    },
}

impl<P: Peer> Fanout<P> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            position: Position::ZERO,
            heard: None,
            ring: Ring::new(limits.ring_bytes),
            peers: ShrinkingMap::default(),
            rooms: ShrinkingMap::default(),
            dashboards_of_org: ShrinkingMap::default(),
            dashboards_of_user: ShrinkingMap::default(),
            counts: CountBook::default(),
            sending: Sending::new(&limits),
            joined_tasks: 0,
            in_dashboard: 0,
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn add_peer(&mut self, id: PeerId, peer: P, viewer: Viewer) {
        let joined = Joined {
            outbox: Outbox::new(peer),
            viewer,
            tasks: ShrinkingSet::default(),
            dashboard: Dashboard::Out,
        };
        self.peers.insert(id, joined);
    }

    /// Removes the peer from everything. Returns whether it had the dashboard.
    pub fn remove_peer(&mut self, id: PeerId) -> bool {
        let had_dashboard = self.leave_everything(id);
        self.peers.remove(&id);
        self.sending.pressed.remove(id);
        if self.sending.pressed.is_empty() {
            // The list is not read again before another peer is pressed.
            self.sending.relief.take();
        }
        had_dashboard
    }

    /// Removes the peer from all rooms, at the end of a session that is still connected. Returns whether it had the dashboard.
    pub fn leave_everything(&mut self, id: PeerId) -> bool {
        let Some(joined) = self.peers.get_mut(&id) else { return false };
        self.joined_tasks -= joined.tasks.len();
        for task in std::mem::take(&mut joined.tasks) {
            self.forget_member(id, &task);
        }
        self.leave_dashboard(id)
    }

    pub fn leave_task(&mut self, id: PeerId, task: &TaskId) {
        if let Some(joined) = self.peers.get_mut(&id) {
            self.joined_tasks -= usize::from(joined.tasks.remove(task));
        }
        self.forget_member(id, task);
    }

    /// Returns whether the peer had the dashboard.
    pub fn leave_dashboard(&mut self, id: PeerId) -> bool {
        let Some(joined) = self.peers.get_mut(&id) else { return false };
        let before = std::mem::replace(&mut joined.dashboard, Dashboard::Out);
        let viewer = joined.viewer.clone();
        if matches!(before, Dashboard::In { .. }) {
            self.forget_dashboard(id, &viewer);
        }
        before != Dashboard::Out
    }

    /// The tasks that the peer has joined, and whether it has joined the dashboard.
    pub fn wanted(&self, id: PeerId) -> (Vec<TaskId>, bool) {
        self.peers.get(&id).map_or((Vec::new(), false), |joined| {
            (joined.tasks.iter().cloned().collect(), joined.dashboard != Dashboard::Out)
        })
    }

    pub fn has_joined(&self, id: PeerId, task: &TaskId) -> bool {
        self.peers.get(&id).is_some_and(|joined| joined.tasks.contains(task))
    }

    /// Returns whether the task's room has a member and this peer sees the task, as far as this node knows. This is a hint,
    /// because the store may have newer data. The result is false if this node may be behind.
    pub fn sees_room(&self, id: PeerId, task: &TaskId) -> bool {
        let Some((room, joined)) = self.rooms.get(task).zip(self.peers.get(&id)) else { return false };
        let is_current = self.heard.is_some_and(|heard| heard.elapsed() < CURRENT) && !self.waits();
        is_current && sees(&room.access, &joined.viewer)
    }

    /// The number of rooms that the peer has asked for.
    pub fn rooms_of(&self, id: PeerId) -> usize {
        self.peers
            .get(&id)
            .map_or(0, |joined| joined.tasks.len() + usize::from(joined.dashboard != Dashboard::Out))
    }

    /// Gives the peer another viewer. The peer then has to enter its rooms again.
    pub fn change_viewer(&mut self, id: PeerId, viewer: Viewer) {
        self.suspend(id);
        if let Some(joined) = self.peers.get_mut(&id) {
            joined.viewer = viewer;
            joined.outbox.peer.refresh();
        }
    }

    /// Every change after `position` follows.
    pub fn open(&mut self, position: Position) {
        self.ring.open(position);
        self.position = position;
    }

    /// Changes may have been missed. No peer gets another event before it has a new state.
    pub fn gap(&mut self) {
        self.ring.close();
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.suspend(id);
            if self.rooms_of(id) > 0 {
                self.peers[&id].outbox.peer.refresh();
            }
        }
        self.counts.clear();
    }

    /// No other change happened up to `position`.
    pub fn advance(&mut self, position: Position) {
        self.position = self.position.max(position);
        self.heard = Some(Instant::now());
    }

    pub fn apply(&mut self, step: Step) {
        self.end_membership(&step);
        if let Some(room) = self.rooms.get_mut(&step.task)
            && room.document.is_same_document(&step.task)
        {
            if room.access != step.after {
                room.access.clone_from(&step.after);
            }
            for event in &step.room {
                for (id, mark) in &room.members {
                    if event.position > mark.at
                        && let Some(joined) = self.peers.get_mut(id)
                    {
                        joined.outbox.deliver(*id, &event.message, &mut self.sending);
                    }
                }
            }
        }
        if let Some(after) = &step.after {
            for event in &step.listed {
                self.send_to_dashboards(after, event, None);
            }
        }
        if let (Some(before), Some(event)) = (&step.before, &step.unlisted) {
            self.send_to_dashboards(before, event, step.after.as_ref());
        }
        self.counts.apply(&step.counted, step.position);
        self.position = self.position.max(step.position);
        self.ring.push(step);
    }

    /// Sends counts to the dashboards whose counts have changed. Returns the number of dashboards.
    pub fn flush_counts(&mut self) -> usize {
        let mut ids: HashSet<PeerId> = HashSet::new();
        for org in std::mem::take(&mut self.counts.dirty_orgs) {
            ids.extend(self.dashboards_of_org.get(&org).into_iter().flatten());
        }
        for user in std::mem::take(&mut self.counts.dirty_users) {
            ids.extend(self.dashboards_of_user.get(&user).into_iter().flatten());
        }
        let position = self.position;
        let mut encoded = ShrinkingMap::default();
        let mut told = 0;
        for id in ids {
            let Some(joined) = self.peers.get_mut(&id) else { continue };
            let Dashboard::In { mark, known } = &mut joined.dashboard else { continue };
            match self.counts.of(&joined.viewer, position) {
                Some(counts) if position >= *mark => {
                    if *known != Some(counts) {
                        *known = Some(counts);
                        let message = encoded
                            .entry(counts)
                            .or_insert_with(|| super::delivery::counts_message(counts, position));
                        joined.outbox.deliver(id, message, &mut self.sending);
                        told += 1;
                    }
                }
                // The counts or the state are ahead of the fan-out. This is repeated until the fan-out has caught up.
                _ => {
                    self.counts.dirty_users.insert(joined.viewer.user.clone());
                }
            }
        }
        told
    }

    pub fn counts_are_dirty(&self) -> bool {
        self.counts.is_dirty()
    }

    /// Sends the last event to members that no longer see the task, and removes them before the next event. A member may have
    /// joined with a `since` from a time when it could not see the task. Such a member gets a state instead.
    fn end_membership(&mut self, step: &Step) {
        let Some(Room { document, members, .. }) = self.rooms.get_mut(&step.task) else { return };
        if !document.is_same_document(&step.task) {
            return;
        }
        members.retain(|id, mark| {
            let proven = step.position <= mark.at || step.position > mark.unproven;
            if proven && step.ended.is_none() {
                return true;
            }
            let Some(joined) = self.peers.get_mut(id) else { return false };
            if !proven {
                let is_told = step.ended.as_ref().is_some_and(|ended| ended.position > mark.at);
                let could_see = sees(&step.before, &joined.viewer);
                if !could_see || !(is_told || sees(&step.after, &joined.viewer)) {
                    joined.outbox.peer.refresh();
                    return false;
                }
            }
            let Some(ended) = &step.ended else { return true };
            let stays = mark.at >= ended.position || sees(&step.after, &joined.viewer);
            if !stays {
                self.joined_tasks -= usize::from(joined.tasks.remove(&step.task));
                joined.outbox.deliver(*id, &ended.message, &mut self.sending);
            }
            stays
        });
        if members.is_empty() {
            self.rooms.remove(&step.task);
        }
    }

    /// Sends an event to the dashboards of viewers that `seen` allows, except those that `still` allows.
    fn send_to_dashboards(&mut self, seen: &Access, event: &Event, still: Option<&Access>) {
        let org = seen.public_org();
        let of_org = org.and_then(|org| self.dashboards_of_org.get(org)).into_iter().flatten();
        let of_user = seen.creator.as_ref().and_then(|user| self.dashboards_of_user.get(user));
        let everyone = of_org.map(|id| (id, false)).chain(of_user.into_iter().flatten().map(|id| (id, true)));
        for (id, as_creator) in everyone {
            let Some(joined) = self.peers.get_mut(id) else { continue };
            let Dashboard::In { mark, .. } = &joined.dashboard else { continue };
            let twice = as_creator && org.is_some() && joined.viewer.org.as_ref() == org;
            let excepted = still.is_some_and(|access| access.allows(&joined.viewer));
            if !twice && !excepted && event.position > *mark {
                joined.outbox.deliver(*id, &event.message, &mut self.sending);
            }
        }
    }

    /// Removes the peer from all rooms, but keeps the list of rooms that it has asked for.
    pub(super) fn suspend(&mut self, id: PeerId) {
        let Some(joined) = self.peers.get_mut(&id) else { return };
        let viewer = joined.viewer.clone();
        let tasks: Vec<TaskId> = joined.tasks.iter().cloned().collect();
        let was_in = matches!(joined.dashboard, Dashboard::In { .. });
        if was_in {
            joined.dashboard = Dashboard::Wanted;
            self.forget_dashboard(id, &viewer);
        }
        for task in tasks {
            self.forget_member(id, &task);
        }
    }

    fn forget_member(&mut self, id: PeerId, task: &TaskId) {
        if let Some(Room { members, .. }) = self.rooms.get_mut(task) {
            members.remove(&id);
            if members.is_empty() {
                self.rooms.remove(task);
            }
        }
    }

    fn forget_dashboard(&mut self, id: PeerId, viewer: &Viewer) {
        self.in_dashboard -= 1;
        if let Some(org) = &viewer.org
            && let Some(ids) = self.dashboards_of_org.get_mut(org)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.dashboards_of_org.remove(org);
            }
        }
        if let Some(ids) = self.dashboards_of_user.get_mut(&viewer.user) {
            ids.remove(&id);
            if ids.is_empty() {
                self.dashboards_of_user.remove(&viewer.user);
            }
        }
        self.counts.leave(viewer);
    }
}

pub(super) fn sees(access: &Option<Access>, viewer: &Viewer) -> bool {
    access.as_ref().is_some_and(|access| access.allows(viewer))
}
