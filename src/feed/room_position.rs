//! The position that the copy of a task has when a client has applied a change.

use super::{Change, Position, TimelineChange, translate};
use crate::task::{Field, Task};

/// The position of the last event that the change causes in the room of its task. `None` means that it causes no event there.
///
/// A copy that is at this position or later contains the whole change. Every member of the room that still sees the task gets the
/// event of this position.
pub fn last_room_event(change: &Change) -> Option<Position> {
    // The number of events does not depend on how many entries of a timeline a state contains.
    translate(change, 0).iter().flat_map(|step| &step.room).map(|event| event.position).max()
}

/// Returns whether the change causes an event in the room of its task. This takes less time than to make the events.
pub fn changes_room(change: &Change) -> bool {
    let differ = |was: &Task, is: &Task| {
        Field::ALL.into_iter().any(|field| field != Field::UpdatedAt && was.get(field) != is.get(field))
    };
    match (&change.before, &change.after) {
        (Some(was), Some(is)) => change.timeline != TimelineChange::Unchanged || differ(was, is),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        feed::TimelineChange,
        task::{DefaultOrg, TaskId, TimelineEntry, Timestamp},
    };

    fn change(before: Option<Value>, after: Value, entries: usize) -> Change {
        let task = |document: Value| {
            let Value::Object(document) = document else { panic!("an object") };
            Task::from_document(document, &DefaultOrg(None)).expect("a task")
        };
        let entry = || TimelineEntry::from_document(json!({"eventType": "e"}));
        Change {
            position: Position::change(7, 2),
            occurred_at: Timestamp::from_millis(0).expect("a time"),
            task: TaskId::parse("t").expect("an id"),
            before: before.map(task),
            after: Some(task(after)),
            timeline: TimelineChange::appended((0..entries).map(|_| entry()).collect()),
        }
    }

    fn position_of(change: &Change) -> Option<Position> {
        let position = last_room_event(change);
        assert_eq!(changes_room(change), position.is_some());
        position
    }

    #[test]
    fn it_is_the_last_of_several_events() {
        let before = json!({"_id": "t", "status": "coding", "createdBy": "alice"});
        let after =
            json!({"_id": "t", "status": "failed", "errorMessage": "e", "title": "u", "createdBy": "alice"});
        let position = |index| Some(Position { time: 7, ordinal: 2, index });
        assert_eq!(position_of(&change(Some(before.clone()), after.clone(), 0)), position(1));
        assert_eq!(position_of(&change(Some(before.clone()), after, 3)), position(4));
        // Events of a change that is sent in several steps.
        assert_eq!(position_of(&change(Some(before.clone()), before.clone(), 200)), position(199));
        // `task:deleted`, for members that no longer see the task, is before the events of the others.
        let private = json!({"_id": "t", "status": "coding", "createdBy": "alice", "isPrivate": true});
        assert_eq!(position_of(&change(Some(before), private, 0)), position(1));
    }

    #[test]
    fn a_change_without_an_event_in_the_room_has_none() {
        let task = json!({"_id": "t", "status": "coding"});
        let later = json!({"_id": "t", "status": "coding", "updatedAt": "2026-01-01T00:00:00Z"});
        assert_eq!(position_of(&change(None, task.clone(), 0)), None, "nobody is in the room of a new task");
        assert_eq!(position_of(&change(Some(task.clone()), task.clone(), 0)), None);
        assert_eq!(position_of(&change(Some(task), later, 0)), None, "only updatedAt has changed");
    }
}
