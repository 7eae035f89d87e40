//! The exact handoff from a snapshot to live events. In one turn, a join sends a state with its position, replays the
//! events after that position, and enters the room.
//!
//! The snapshot may be behind the fan-out; then the ring has the events in between. The snapshot may also be ahead of the
//! fan-out; then the mark of the member suppresses the events that the state contains.

use crate::{
    feed::{Event, Position, Step},
    shrinking_map::ShrinkingMap,
    task::{Access, Counts, TaskId, Viewer},
    wire::Message,
};

use super::{
    Fanout, Peer, PeerId,
    delivery::deleted_message,
    rooms::{Dashboard, Mark, Room, sees},
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
    /// True if the client gets the counts together with the state. Otherwise the counts follow as an event.
    pub counts_told: bool,
    /// [`Fanout::recover_dashboard`] does not need it.
    pub state: Option<&'a Message>,
}

/// The result of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Entered,
    /// There is no such task for this viewer. A peer that was a member has got `task:deleted` and is no longer a member. If the
    /// caller tries again, it must not use the old `since`.
    Gone,
    /// The snapshot is too old, or the visibility has changed since. The caller has to read again.
    Reread,
}

impl Entry {
    /// The result in one word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Entry::Entered => "state",
            Entry::Gone => "gone",
            Entry::Reread => "reread",
        }
    }
}

impl<P: Peer> Fanout<P> {
    /// Sends the state and the events after it, and enters the room.
    pub fn enter_task(&mut self, id: PeerId, offer: TaskOffer<'_>) -> Entry {
        let Some(joined) = self.peers.get(&id) else { return Entry::Entered };
        if !self.ring.holds(offer.at) {
            return Entry::Reread;
        }
        let later = || {
            let steps = self.ring.of_task(offer.task, offer.at);
            steps.filter(|step| step.task.is_same_document(offer.task))
        };
        if !offer.access.is_some_and(|access| access.allows(&joined.viewer)) {
            // Only a step that makes the task visible justifies another read. Otherwise the time of the answer would
            // distinguish a forbidden task that changes from a task that does not exist.
            if later().any(|step| sees(&step.after, &joined.viewer)) {
                return Entry::Reread;
            }
            // The member has a newer state: a shared read may have begun before the join that made the peer a member.
            let mark = self.rooms.get(offer.task).and_then(|room| room.members.get(&id));
            if mark.is_some_and(|mark| mark.at > offer.at) {
                return Entry::Reread;
            }
            self.expel(id, &offer);
            return Entry::Gone;
        }
        match (replay(later(), &joined.viewer, offer.at, self.limits.replay_events), offer.state) {
            (None, _) | (_, None) => Entry::Reread,
            (Some(events), Some(state)) => {
                let mark = Mark { at: offer.at, unproven: offer.at };
                self.enter_room(id, &offer, mark, std::iter::once(state.clone()).chain(events));
                Entry::Entered
            }
        }
    }

    /// Enters the room with only the events after `since`, if the ring holds all of them and this viewer could see them.
    /// Returns false if the peer needs a state instead.
    pub fn recover_task(&mut self, id: PeerId, offer: TaskOffer<'_>, since: Position) -> bool {
        let Some(joined) = self.peers.get(&id) else { return true };
        let sees = offer.access.is_some_and(|access| access.allows(&joined.viewer));
        if !sees || since > offer.at || !self.ring.holds(since) {
            return false;
        }
        if self.ring.of_task(offer.task, since).any(|step| !step.task.is_same_document(offer.task)) {
            // The client may have the state of another document whose id has the same text.
            return false;
        }
        let is_member =
            |room: &Room| room.document.is_same_document(offer.task) && room.members.contains_key(&id);
        if self.rooms.get(offer.task).is_some_and(is_member) {
            // The join that made this connection a member has already sent the events that it missed.
            return true;
        }
        let later =
            self.ring.of_task(offer.task, since).filter(|step| step.task.is_same_document(offer.task));
        match replay(later, &joined.viewer, since, self.limits.replay_events) {
            None => false,
            Some(events) => {
                let mark = Mark { at: since, unproven: offer.at };
                self.enter_room(id, &offer, mark, events.into_iter());
                true
            }
        }
    }

    pub fn enter_dashboard(&mut self, id: PeerId, offer: DashboardOffer<'_>) -> Entry {
        let Some(joined) = self.peers.get(&id) else { return Entry::Entered };
        if !self.ring.holds(offer.at) {
            return Entry::Reread;
        }
        let Some(events) = self.dashboard_events(&joined.viewer, offer.at) else { return Entry::Reread };
        let known = offer.counts_told.then(|| offer.org_counts.plus(offer.own_counts));
        let messages = offer.state.cloned().into_iter().chain(events);
        self.put_in_dashboard(id, &offer, offer.at, known, messages);
        Entry::Entered
    }

    /// Does the same as [`Fanout::recover_task`] for the dashboard.
    pub fn recover_dashboard(&mut self, id: PeerId, offer: DashboardOffer<'_>, since: Position) -> bool {
        let Some(joined) = self.peers.get(&id) else { return true };
        if since > offer.at || !self.ring.holds(since) || !self.ring.holds(offer.at) {
            return false;
        }
        if matches!(joined.dashboard, Dashboard::In { .. }) {
            return true;
        }
        let Some(events) = self.dashboard_events(&joined.viewer, since) else { return false };
        self.put_in_dashboard(id, &offer, since, None, events.into_iter());
        true
    }

    /// Removes a member if the snapshot shows that the task is deleted or no longer visible to it. The member gets
    /// `task:deleted` at once, and does not wait for the event of the change.
    fn expel(&mut self, id: PeerId, offer: &TaskOffer<'_>) {
        if self.has_joined(id, offer.task) {
            self.leave_task(id, offer.task);
            self.reply(id, &deleted_message(offer.task, offer.at));
        }
    }

    fn enter_room(
        &mut self,
        id: PeerId,
        offer: &TaskOffer<'_>,
        mark: Mark,
        messages: impl Iterator<Item = Message>,
    ) {
        let Some(joined) = self.peers.get_mut(&id) else { return };
        for message in messages {
            joined.outbox.deliver(id, &message, &mut self.sending);
        }
        self.joined_tasks += usize::from(joined.tasks.insert(offer.task.clone()));
        self.end_other_document(offer.task);
        let room = self.rooms.entry(offer.task.clone()).or_insert_with(|| {
            let mut later = self.ring.of_task(offer.task, offer.at);
            let last = later.rfind(|step| step.task.is_same_document(offer.task));
            let access = last.map_or(offer.access, |step| step.after.as_ref()).cloned();
            Room { document: offer.task.clone(), access, members: ShrinkingMap::default() }
        });
        room.members.insert(id, mark);
    }

    /// The store now returns another document for this id. Members that followed the previous one enter their rooms again.
    fn end_other_document(&mut self, document: &TaskId) {
        if self.rooms.get(document).is_some_and(|room| !room.document.is_same_document(document))
            && let Some(room) = self.rooms.remove(document)
        {
            for id in room.members.keys() {
                if let Some(joined) = self.peers.get(id) {
                    joined.outbox.peer.refresh();
                }
            }
        }
    }

    fn put_in_dashboard(
        &mut self,
        id: PeerId,
        offer: &DashboardOffer<'_>,
        mark: Position,
        known: Option<Counts>,
        messages: impl Iterator<Item = Message>,
    ) {
        self.leave_dashboard(id);
        let Some(joined) = self.peers.get_mut(&id) else { return };
        for message in messages {
            joined.outbox.deliver(id, &message, &mut self.sending);
        }
        joined.dashboard = Dashboard::In { mark, known };
        self.in_dashboard += 1;
        let viewer = joined.viewer.clone();
        self.counts.enter(&viewer, (offer.org_counts, offer.own_counts), offer.at, &self.ring);
        if let Some(org) = viewer.org {
            self.dashboards_of_org.entry(org).or_default().insert(id);
        }
        self.dashboards_of_user.entry(viewer.user).or_default().insert(id);
    }

    /// The events for the viewer's dashboard after `after`. Returns `None` if there are too many.
    fn dashboard_events(&self, viewer: &Viewer, after: Position) -> Option<Vec<Message>> {
        let mut events = Vec::new();
        for step in self.ring.of_dashboard(viewer, after) {
            let (seen, seen_now) = (sees(&step.before, viewer), sees(&step.after, viewer));
            let listed = step.listed.iter().filter(|_| seen_now);
            let unlisted = step.unlisted.iter().filter(|_| seen && !seen_now);
            events.extend(listed.chain(unlisted).filter(|event| event.position > after).map(message));
            if events.len() > self.limits.replay_events {
                return None;
            }
        }
        Some(events)
    }
}

/// The room's events after `after`. Returns `None` if there are too many, or if the viewer could not see the task at some
/// point since then. The events of that time must not leak, and only a new snapshot shows the current state.
fn replay<'a>(
    steps: impl Iterator<Item = &'a Step>,
    viewer: &Viewer,
    after: Position,
    limit: usize,
) -> Option<Vec<Message>> {
    let mut events = Vec::new();
    for step in steps {
        if !sees(&step.before, viewer) || !sees(&step.after, viewer) {
            return None;
        }
        events.extend(step.room.iter().filter(|event| event.position > after).map(message));
        if events.len() > limit {
            return None;
        }
    }
    Some(events)
}

fn message(event: &Event) -> Message {
    event.message.clone()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::{
        fanout::{Limits, SendError},
        feed::{Change, TimelineChange, translate},
        task::{DefaultOrg, Task, Timestamp, UserId},
        wire::Message,
    };

    /// Counts the messages that a client was sent, and how often it had to enter its rooms again.
    #[derive(Clone, Default)]
    struct Client(Arc<Mutex<(usize, usize)>>);

    impl Peer for Client {
        fn send(&self, _: Message) -> Result<bool, SendError> {
            self.0.lock().unwrap().0 += 1;
            Ok(false)
        }

        fn cut(&self) {}

        fn refresh(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    /// A task with this creator and with an id of this kind of type.
    fn task(creator: &str, kind: u8, title: &str) -> Task {
        let document = json!({"_id": "42", "createdBy": creator, "title": title, "status": "coding"});
        let serde_json::Value::Object(document) = document else { panic!("an object") };
        let mut task = Task::from_document(document, &DefaultOrg::default()).expect("a task");
        task.id = task.id.of_kind(kind);
        task
    }

    fn changed(fanout: &mut Fanout<Client>, time: u64, creator: &str, kind: u8) {
        let change = Change {
            position: Position::change(time, 0),
            occurred_at: Timestamp::from_millis(0).expect("a time"),
            task: task(creator, kind, "").id,
            before: Some(task(creator, kind, "before")),
            after: Some(task(creator, kind, "after")),
            timeline: TimelineChange::Unchanged,
        };
        for step in translate(&change, usize::MAX) {
            fanout.apply(step);
        }
    }

    fn joined(fanout: &mut Fanout<Client>, id: u64, creator: &str, kind: u8, time: u64) -> Entry {
        let (task, state) = (task(creator, kind, ""), Message::event("task:state", &json!({})));
        fanout.enter_task(
            PeerId(id),
            TaskOffer {
                task: &task.id,
                access: Some(&task.access),
                at: Position::end_of(time),
                state: Some(&state),
            },
        )
    }

    /// Alice may see one document and Bob another one. The ids of both have the same text.
    #[test]
    fn a_room_follows_one_document() {
        let limits = Limits {
            ring_bytes: 100_000,
            replay_events: 100,
            patience: std::time::Duration::ZERO,
            behind_messages: 0,
        };
        let mut fanout = Fanout::new(limits);
        fanout.open(Position::end_of(1));
        let (alice, bob) = (Client::default(), Client::default());
        for (id, name, client) in [(1, "alice", &alice), (2, "bob", &bob)] {
            let viewer = Viewer { user: UserId::parse(name).expect("a user"), org: None };
            fanout.add_peer(PeerId(id), client.clone(), viewer);
        }
        let sent = |client: &Client| *client.0.lock().unwrap();
        assert_eq!(joined(&mut fanout, 1, "alice", 1, 1), Entry::Entered);
        assert_eq!(sent(&alice), (1, 0));
        changed(&mut fanout, 2, "bob", 5);
        assert_eq!(sent(&alice), (1, 0), "the other document is not for her");
        changed(&mut fanout, 3, "alice", 1);
        assert_eq!(sent(&alice), (2, 0));

        // Now the store returns the other document. Alice has to enter her room again, and gets no events of it.
        assert_eq!(joined(&mut fanout, 2, "bob", 5, 3), Entry::Entered);
        assert_eq!((sent(&alice), sent(&bob)), ((2, 1), (1, 0)));
        changed(&mut fanout, 4, "bob", 5);
        changed(&mut fanout, 5, "alice", 1);
        assert_eq!((sent(&alice), sent(&bob)), ((2, 1), (2, 0)));
        // Alice has the state of another document.
        let other = task("alice", 5, "");
        let offer =
            TaskOffer { task: &other.id, access: Some(&other.access), at: Position::end_of(5), state: None };
        assert!(!fanout.recover_task(PeerId(1), offer, Position::end_of(1)));
    }
}
