//! Joins of tasks whose ids have the same text.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::{
    fanout::{EnterOutcome, Limits, SendError},
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

    fn refresh(&self, _: &'static str) {
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
        fanout.tasks.apply(step, &mut fanout.clients);
    }
}

fn joined(fanout: &mut Fanout<Client>, id: u64, creator: &str, kind: u8, time: u64) -> EnterOutcome {
    let (task, state) = (task(creator, kind, ""), Message::event("task:state", &json!({}), None));
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
    fanout.tasks.open(Position::end_of(1));
    let (alice, bob) = (Client::default(), Client::default());
    for (id, name, client) in [(1, "alice", &alice), (2, "bob", &bob)] {
        let viewer = Viewer { user: UserId::parse(name).expect("a user"), org: None };
        fanout.add_peer(PeerId(id), client.clone(), viewer);
    }
    let sent = |client: &Client| *client.0.lock().unwrap();
    assert_eq!(joined(&mut fanout, 1, "alice", 1, 1), EnterOutcome::Entered);
    assert_eq!(sent(&alice), (1, 0));
    changed(&mut fanout, 2, "bob", 5);
    assert_eq!(sent(&alice), (1, 0), "the other document is not for her");
    changed(&mut fanout, 3, "alice", 1);
    assert_eq!(sent(&alice), (2, 0));

    // Now the store returns the other document. Alice has to enter her room again, and gets no events of it.
    assert_eq!(joined(&mut fanout, 2, "bob", 5, 3), EnterOutcome::Entered);
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
