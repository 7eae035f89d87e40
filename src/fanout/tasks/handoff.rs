//! Joins of tasks and dashboards.

use super::{Dashboard, FollowedTask, Key, Tasks, messages::deleted, sees};
use crate::{
    fanout::{EnterOutcome, Fanout, Peer, PeerId, handoff::Offer},
    feed::{Position, Step},
    task::{Access, Counts, TaskId, Viewer},
    wire::Message,
};

/// A task's state, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct TaskOffer<'a> {
    /// The id of the document that was read, if there is one.
    pub task: &'a TaskId,
    /// The access to the task. `None` means that the task does not exist.
    pub access: Option<&'a Access>,
    pub at: Position,
    /// [`Fanout::recover_task`] does not need it.
    pub state: Option<&'a Message>,
}

/// A viewer's dashboard, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct DashboardOffer<'a> {
    pub at: Position,
    pub org_counts: Counts,
    pub own_counts: Counts,
    /// True if the client gets the counts in the reply to its request. Otherwise the counts follow as an event.
    pub counts_in_reply: bool,
    /// [`Fanout::recover_dashboard`] does not need it.
    pub state: Option<&'a Message>,
}

impl<P: Peer> Fanout<P> {
    /// Sends the state and the events after it, and enters the room.
    pub fn enter_task(&mut self, id: PeerId, offer: TaskOffer<'_>) -> EnterOutcome {
        let Some(viewer) = self.clients.viewer(id) else { return EnterOutcome::Entered };
        if !offer.access.is_some_and(|access| access.allows(viewer)) {
            return self.refuse_task(id, &offer);
        }
        let Some(state) = offer.state else { return EnterOutcome::Reread };
        let (key, subject) = room_of(&offer);
        let offer = Offer { keys: &[key], subject: &subject, at: offer.at };
        self.tasks.enter(id, &offer, state, &mut self.clients)
    }

    /// Enters the room with only the events after `since`, if the ring holds all of them and this viewer could see them.
    /// Returns false if the client needs a state instead.
    pub fn recover_task(&mut self, id: PeerId, offer: TaskOffer<'_>, since: Position) -> bool {
        let Some(viewer) = self.clients.viewer(id) else { return true };
        if !offer.access.is_some_and(|access| access.allows(viewer)) {
            return false;
        }
        let (key, subject) = room_of(&offer);
        let offer = Offer { keys: &[key], subject: &subject, at: offer.at };
        self.tasks.recover(id, &offer, since, &mut self.clients)
    }

    pub fn enter_dashboard(&mut self, id: PeerId, offer: DashboardOffer<'_>) -> EnterOutcome {
        let Some(viewer) = self.clients.viewer(id).cloned() else { return EnterOutcome::Entered };
        let Some(state) = offer.state else { return EnterOutcome::Reread };
        let keys = dashboards_of(&viewer);
        let rooms = Offer { keys: &keys, subject: &None, at: offer.at };
        let entry = self.tasks.enter(id, &rooms, state, &mut self.clients);
        if entry == EnterOutcome::Entered {
            let known = offer.counts_in_reply.then(|| offer.org_counts.plus(offer.own_counts));
            self.keep_dashboard(id, &keys, Dashboard { viewer, at: offer.at, known }, &offer);
        }
        entry
    }

    /// Does the same as [`Fanout::recover_task`] for the dashboard.
    pub fn recover_dashboard(&mut self, id: PeerId, offer: DashboardOffer<'_>, since: Position) -> bool {
        let Some(viewer) = self.clients.viewer(id).cloned() else { return true };
        let was_member = self.tasks.kind.dashboards.contains_key(&id);
        let keys = dashboards_of(&viewer);
        let rooms = Offer { keys: &keys, subject: &None, at: offer.at };
        let recovered = self.tasks.recover(id, &rooms, since, &mut self.clients);
        if recovered && !was_member {
            self.keep_dashboard(id, &keys, Dashboard { viewer, at: since, known: None }, &offer);
        }
        recovered
    }

    /// Answers a join of a viewer that does not see the task in the snapshot. A member gets `task:deleted` at once, and does not
    /// wait for the event of the change.
    fn refuse_task(&mut self, id: PeerId, offer: &TaskOffer<'_>) -> EnterOutcome {
        let Some(viewer) = self.clients.viewer(id) else { return EnterOutcome::Entered };
        if !self.tasks.ring.holds(offer.at) {
            return EnterOutcome::Reread;
        }
        let key = Key::Task(offer.task.clone());
        // Only a step that makes the task visible justifies another read. Otherwise the time of the answer would distinguish a
        // forbidden task that changes from a task that does not exist.
        let is_visible_after =
            |step: &Step| step.task.is_same_document(offer.task) && sees(&step.after, viewer);
        if self.tasks.ring.of(&key, offer.at).any(is_visible_after) {
            return EnterOutcome::Reread;
        }
        // The member has a newer state: a shared read may have begun before the join that made the client a member.
        let mark = self.tasks.rooms.get(&key).and_then(|room| room.members.get(id));
        if mark.is_some_and(|mark| mark.at > offer.at) {
            return EnterOutcome::Reread;
        }
        if self.tasks.has_joined(id, &key) {
            self.tasks.leave(id, &key);
            self.reply(id, &deleted(offer.task, offer.at));
        }
        EnterOutcome::Gone
    }

    /// Keeps the counts of a client that has just entered these rooms of dashboards. It leaves those of its previous viewer.
    fn keep_dashboard(&mut self, id: PeerId, keys: &[Key], dashboard: Dashboard, offer: &DashboardOffer<'_>) {
        self.leave_dashboards(id, |key| !keys.contains(key));
        let Tasks { counts, dashboards, .. } = &mut self.tasks.kind;
        let viewer = dashboard.viewer.clone();
        if let Some(before) = dashboards.insert(id, dashboard) {
            counts.leave(&before.viewer);
        }
        counts.enter(&viewer, (offer.org_counts, offer.own_counts), offer.at, &self.tasks.ring);
    }
}

fn room_of(offer: &TaskOffer<'_>) -> (Key, Option<Box<FollowedTask>>) {
    let followed = FollowedTask { document: offer.task.clone(), access: offer.access.cloned() };
    (Key::Task(offer.task.clone()), Some(Box::new(followed)))
}

fn dashboards_of(viewer: &Viewer) -> Vec<Key> {
    let org = viewer.org.clone().map(Key::Org);
    org.into_iter().chain([Key::User(viewer.user.clone())]).collect()
}
