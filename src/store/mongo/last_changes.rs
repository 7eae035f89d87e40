//! Remembers the last visible change of each task that the feed has read, by which `If-Match` is decided.
//!
//! A document does not say when it was changed last, because other programs write it, too. The feed knows it. What happened before the
//! feed was opened, or was evicted, is not known.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::{
    feed::{Change, Position, changes_room},
    shrinking_map::ShrinkingMap,
    task::TaskId,
};

/// The maximum number of remembered changes. An entry takes about 200 bytes.
const MAX_CHANGES: usize = 50_000;

#[derive(Debug)]
pub(super) struct LastChanges {
    state: Mutex<Option<State>>,
    max_changes: usize,
}

impl Default for LastChanges {
    fn default() -> Self {
        Self { state: Mutex::default(), max_changes: MAX_CHANGES }
    }
}

#[derive(Debug)]
struct State {
    /// All later changes that the feed has read are remembered.
    known_after: Position,
    by_task: ShrinkingMap<TaskKey, Position>,
    /// The remembered changes, the oldest first.
    order: VecDeque<(Position, TaskKey)>,
}

/// The text of an id and its kind. Two documents may have ids with the same text.
type TaskKey = (TaskId, u8);

impl LastChanges {
    /// The feed will report every change after `position`.
    pub(super) fn opened(&self, position: Position) {
        let (by_task, order) = (ShrinkingMap::default(), VecDeque::new());
        *self.state.lock() = Some(State { known_after: position, by_task, order });
    }

    /// Forgets everything, because changes may have been missed.
    pub(super) fn lost(&self) {
        *self.state.lock() = None;
    }

    pub(super) fn change(&self, change: &Change) {
        let mut state = self.state.lock();
        // A task that is deleted and created again is another task.
        let is_visible = changes_room(change) || change.before.is_none() || change.after.is_none();
        let Some(state) = state.as_mut().filter(|_| is_visible) else { return };
        let key = (change.task.clone(), change.task.kind());
        state.by_task.insert(key.clone(), change.position);
        state.order.push_back((change.position, key));
        if state.order.len() > self.max_changes
            && let Some((position, key)) = state.order.pop_front()
        {
            state.known_after = position;
            if state.by_task.get(&key) == Some(&position) {
                state.by_task.remove(&key);
            }
        }
    }

    /// Returns whether the task is known not to have changed after `since`, as far as the feed has read. `id` is the id of its document.
    pub(super) fn is_unchanged(&self, id: &TaskId, since: Position) -> bool {
        let state = self.state.lock();
        let Some(state) = state.as_ref() else { return false };
        match state.by_task.get(&(id.clone(), id.kind())) {
            Some(last) => *last <= since,
            None => state.known_after <= since,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        feed::TimelineChange,
        task::{DefaultOrg, Task, Timestamp},
    };

    fn change(id: &str, time: u64, title: &str) -> Change {
        let task = |title: &str| {
            let document = [("_id", json!(id)), ("title", json!(title))];
            Task::from_document(document, &DefaultOrg(None)).expect("a task")
        };
        Change {
            position: Position::change(time, 0),
            occurred_at: Timestamp::from_millis(0).expect("a time"),
            task: TaskId::parse(id).expect("an id"),
            before: Some(task("before")),
            after: Some(task(title)),
            timeline: TimelineChange::Unchanged,
        }
    }

    fn at(time: u64) -> Position {
        Position::change(time, 0).with_index(3)
    }

    #[test]
    fn a_task_is_unchanged_only_if_all_changes_since_then_are_known() {
        let changes = LastChanges { max_changes: 3, ..LastChanges::default() };
        let id = |id: &str| TaskId::parse(id).expect("an id");
        assert!(!changes.is_unchanged(&id("a"), at(100)), "no feed is open");
        changes.opened(Position::end_of(10));
        assert!(!changes.is_unchanged(&id("a"), at(10)));
        assert!(changes.is_unchanged(&id("a"), Position::end_of(10)));

        changes.change(&change("a", 20, "changed"));
        assert!(!changes.is_unchanged(&id("a"), at(19)));
        assert!(changes.is_unchanged(&id("a"), at(20)) && changes.is_unchanged(&id("b"), at(11)));
        changes.change(&change("a", 21, "before"));
        assert!(changes.is_unchanged(&id("a"), at(20)), "no client can see that change");

        for time in 30..33 {
            changes.change(&change("b", time, "changed"));
        }
        assert!(!changes.is_unchanged(&id("a"), at(19)) && changes.is_unchanged(&id("a"), at(20)));
        assert!(!changes.is_unchanged(&id("c"), at(19)), "a change of 20 was evicted");
        assert!(changes.is_unchanged(&id("c"), at(20)));
        assert!(!changes.is_unchanged(&id("b"), at(31)) && changes.is_unchanged(&id("b"), at(32)));

        changes.lost();
        assert!(!changes.is_unchanged(&id("b"), at(100)));
    }
}
