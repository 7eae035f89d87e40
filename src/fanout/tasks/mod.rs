//! The stream of tasks: the rooms of tasks, the dashboards, and the counts of each viewer.
//!
//! A client with a dashboard is a member of two rooms: one has the public tasks of its organisation, the other the tasks that
//! its user has created. Both have the same events, so the client gets each once.

mod counts;
mod dashboards;
mod handoff;
mod messages;
#[cfg(test)]
mod tests;

pub use handoff::{DashboardOffer, TaskOffer};

use super::{
    Fanout, Peer, PeerId,
    kind::{self, Effect, Kind, Mark},
    peer::PeerMap,
};
use crate::{
    feed::{Position, Step},
    task::{Access, OrgId, TaskId, Timestamp, UserId, Viewer},
};
use counts::CountBook;
use dashboards::Dashboard;

/// A room of the stream of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Task(TaskId),
    /// The dashboards of an organisation: its public tasks.
    Org(OrgId),
    /// The dashboards of a user: the tasks that it has created.
    User(UserId),
}

/// The task of a room. A room of dashboards has none.
#[derive(Clone, Debug)]
pub struct FollowedTask {
    /// The document that the members follow. Another document may have an id with the same text; members do not get its
    /// changes.
    pub document: TaskId,
    pub access: Option<Access>,
}

#[derive(Debug, Default)]
pub struct Tasks {
    pub(super) counts: CountBook,
    /// The clients that are members of their dashboards.
    pub(super) dashboards: PeerMap<Dashboard>,
    /// The memberships in rooms of tasks. A scrape must not visit every room under the lock.
    pub(super) task_members: usize,
}

impl kind::FanoutStep for Step {
    type Key = Key;

    fn position(&self) -> Position {
        self.position
    }

    fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    fn held_bytes(&self) -> usize {
        let events = self.events().map(|event| event.message.held_bytes() + size_of_val(event));
        size_of::<Self>() + events.sum::<usize>()
    }

    /// The room of the task, and the dashboards, if the step has events for them or changes counts.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let orgs = distinct(self, Access::public_org).cloned().map(Key::Org);
        let users = distinct(self, |access| access.creator.as_ref()).cloned().map(Key::User);
        std::iter::once(Key::Task(self.task.clone())).chain(orgs).chain(users)
    }

    fn is_read_by_joins(&self, key: &Key) -> bool {
        key.is_dashboard() || !self.room.is_empty() || self.before != self.after
    }
}

impl Kind for Tasks {
    type Step = Step;
    /// Rooms of dashboards have no task, and do not reserve memory for one.
    type Subject = Option<Box<FollowedTask>>;

    const NAME: &'static str = "tasks";

    fn effects<'a>(step: &'a Step, key: &'a Key) -> impl Fn(&Viewer, &Mark) -> Effect<'a> {
        let public = step.after.as_ref().and_then(Access::public_org);
        let all_see = matches!(key, Key::Org(org) if public == Some(org));
        move |viewer, mark| match key {
            Key::Task(_) => effect_on_task_room(step, viewer, mark),
            Key::Org(_) | Key::User(_) if all_see || sees(&step.after, viewer) => {
                Effect::Deliver(&step.listed)
            }
            Key::Org(_) | Key::User(_) if sees(&step.before, viewer) => {
                Effect::Deliver(step.unlisted.as_slice())
            }
            Key::Org(_) | Key::User(_) => Effect::Deliver(&[]),
        }
    }

    fn have_same_events(one: &Key, other: &Key) -> bool {
        one.is_dashboard() && other.is_dashboard()
    }

    fn concerns(room: &Self::Subject, step: &Step) -> bool {
        room.as_ref().is_none_or(|followed| followed.document.is_same_document(&step.task))
    }

    fn is_same(room: &Self::Subject, other: &Self::Subject) -> bool {
        let both = room.as_ref().zip(other.as_ref());
        both.is_none_or(|(one, other)| one.document.is_same_document(&other.document))
    }

    fn update(room: &mut Self::Subject, step: &Step) {
        if let Some(followed) = room
            && followed.access != step.after
        {
            followed.access.clone_from(&step.after);
        }
    }

    fn applied(&mut self, step: &Step) {
        self.counts.apply(&step.counted, step.position);
    }

    fn entered(&mut self, _: PeerId, key: &Key) {
        self.task_members += usize::from(!key.is_dashboard());
    }

    fn left(&mut self, id: PeerId, key: &Key) {
        match key {
            Key::Task(_) => self.task_members -= 1,
            Key::Org(_) => {}
            Key::User(_) => {
                if let Some(dashboard) = self.dashboards.remove(&id) {
                    self.counts.leave(&dashboard.viewer);
                }
            }
        }
    }

    fn gap(&mut self) {
        *self = Self::default();
    }
}

impl Key {
    pub(super) fn is_dashboard(&self) -> bool {
        matches!(self, Key::Org(_) | Key::User(_))
    }
}

/// Members that no longer see the task get the last event. A member may have joined with a `since` from a time when it could
/// not see the task. Such a member gets a state instead.
fn effect_on_task_room<'a>(step: &'a Step, viewer: &Viewer, mark: &Mark) -> Effect<'a> {
    let last = step.ended.as_ref().filter(|ended| ended.position > mark.at);
    if !mark.proves(step.position) {
        let could_see = sees(&step.before, viewer);
        if !could_see || !(last.is_some() || sees(&step.after, viewer)) {
            return Effect::EnterAgain;
        }
    }
    match last {
        Some(last) if !sees(&step.after, viewer) => Effect::End(last),
        _ => Effect::Deliver(&step.room),
    }
}

pub(super) fn sees(access: &Option<Access>, viewer: &Viewer) -> bool {
    access.as_ref().is_some_and(|access| access.allows(viewer))
}

/// The keys of those that see or saw the task, each once. A step that does not concern dashboards gives none.
fn distinct<'a, T: PartialEq + 'a>(
    step: &'a Step,
    key: impl Fn(&'a Access) -> Option<&'a T> + Copy,
) -> impl Iterator<Item = &'a T> {
    let keys = move || accesses(step).filter_map(key);
    keys()
        .enumerate()
        .filter(move |(n, found)| !keys().take(*n).any(|before| before == *found))
        .map(|(_, key)| key)
}

pub(super) fn accesses(step: &Step) -> impl Iterator<Item = &Access> {
    let concerns_dashboards =
        !step.listed.is_empty() || step.unlisted.is_some() || step.counted.from != step.counted.to;
    let counted = step.counted.from.iter().chain(&step.counted.to).map(|(access, _)| access);
    step.before.iter().chain(&step.after).chain(counted).filter(move |_| concerns_dashboards)
}

impl<P: Peer> Fanout<P> {
    pub fn leave_task(&mut self, id: PeerId, task: &TaskId) {
        self.tasks.leave(id, &Key::Task(task.clone()));
    }

    /// The tasks that the client has joined, and whether it has joined the dashboard.
    pub fn joined_rooms(&self, id: PeerId) -> (Vec<TaskId>, bool) {
        let tasks = self.tasks.joined(id).filter_map(|key| match key {
            Key::Task(task) => Some(task.clone()),
            Key::Org(_) | Key::User(_) => None,
        });
        (tasks.collect(), self.has_joined_dashboard(id))
    }

    pub fn has_joined(&self, id: PeerId, task: &TaskId) -> bool {
        self.tasks.has_joined(id, &Key::Task(task.clone()))
    }

    /// The number of tasks and dashboards that the client has joined.
    pub fn rooms_of(&self, id: PeerId) -> usize {
        let tasks = self.tasks.joined(id).filter(|key| !key.is_dashboard()).count();
        tasks + usize::from(self.has_joined_dashboard(id))
    }

    /// Returns whether the task's room has a member and this client sees the task, as far as this node knows. This is a hint,
    /// because the store may have newer data. The result is false if this node may be behind.
    pub fn sees_room(&self, id: PeerId, task: &TaskId) -> bool {
        let room = self.tasks.rooms.get(&Key::Task(task.clone()));
        let Some((room, viewer)) = room.zip(self.clients.viewer(id)) else { return false };
        let is_current = self.tasks.is_current() && !self.clients.must_wait();
        is_current && room.subject.as_ref().is_some_and(|followed| sees(&followed.access, viewer))
    }
}
