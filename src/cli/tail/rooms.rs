//! The rooms that the client follows, and the last event that it printed of each room.

use serde_json::{Value, json};

/// The dashboard, and the task if one was given.
pub(super) struct Rooms {
    rooms: Vec<Room>,
}

struct Room {
    /// `None` means the dashboard.
    task: Option<String>,
    /// The last `eventId` received in this room.
    last_event_id: Option<String>,
    has_joined: bool,
}

/// Tells new events from those that were printed before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EventStatus {
    New,
    /// The event was printed before the connection was lost.
    Duplicate,
}

impl Rooms {
    pub(super) fn new(task: Option<String>) -> Self {
        let rooms = std::iter::once(None).chain(task.map(Some));
        Self { rooms: rooms.map(|task| Room { task, last_event_id: None, has_joined: false }).collect() }
    }

    /// One request for each room. Until a join is answered, a connection joins the room. Later connections ask for the events after the
    /// last one, or for a state.
    pub(super) fn requests(&self) -> Vec<(&'static str, Value)> {
        self.rooms.iter().map(Room::request).collect()
    }

    /// The name of the room that the request with this number is about.
    pub(super) fn name(&self, request: usize) -> String {
        match self.rooms.get(request).map(|room| &room.task) {
            Some(Some(task)) => format!("task {task:?}"),
            _ => "the dashboard".to_owned(),
        }
    }

    pub(super) fn joined(&mut self, request: usize, answer: &Value) {
        let Some(room) = self.rooms.get_mut(request) else { return };
        room.has_joined = true;
        // The dashboard's state is an array without an event id. The answer may contain the id instead.
        if room.last_event_id.is_none() {
            room.last_event_id = answer.get("eventId").and_then(Value::as_str).map(str::to_owned);
        }
    }

    pub(super) fn record_event(&mut self, event: &str, payload: &Value) -> EventStatus {
        let Some(id) = payload.get("eventId").and_then(Value::as_str) else { return EventStatus::New };
        // A count summarises several changes and may arrive later than they do, so its id is not used.
        if event == "dashboard:task_count_changed" {
            return EventStatus::New;
        }
        let of_dashboard = event == "task:created" || event.starts_with("dashboard:");
        let task = payload.get("taskId").and_then(Value::as_str);
        let room = self.rooms.iter_mut().find(|room| match &room.task {
            None => of_dashboard,
            Some(followed) => !of_dashboard && task == Some(followed),
        });
        let Some(room) = room else { return EventStatus::New };
        let is_state = event.ends_with(":state");
        if !is_state && room.last_event_id.as_deref().is_some_and(|since| id <= since) {
            return EventStatus::Duplicate;
        }
        room.last_event_id = Some(id.to_owned());
        EventStatus::New
    }
}

impl Room {
    fn request(&self) -> (&'static str, Value) {
        match (&self.task, &self.last_event_id) {
            (None, _) if !self.has_joined => ("dashboard:join", json!({})),
            (Some(task), _) if !self.has_joined => ("task:join", json!({ "taskId": task })),
            (None, None) => ("resync_requested", json!({ "dashboard": true })),
            (None, Some(since)) => ("resync_requested", json!({ "dashboard": true, "since": since })),
            (Some(task), None) => ("resync_requested", json!({ "taskIds": [task] })),
            (Some(task), Some(since)) => ("resync_requested", json!({ "taskIds": [task], "since": since })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_room_is_resumed_after_its_last_event() {
        let mut rooms = Rooms::new(Some("t".into()));
        assert_eq!(rooms.requests(), [("dashboard:join", json!({})), ("task:join", json!({"taskId": "t"}))]);
        rooms.joined(0, &json!({"ok": true, "eventId": "01"}));
        rooms.joined(1, &json!({"ok": true}));
        assert_eq!(
            rooms.record_event("task:state", &json!({"taskId": "t", "eventId": "05"})),
            EventStatus::New
        );
        assert_eq!(
            rooms.record_event("task:coding", &json!({"taskId": "t", "eventId": "06"})),
            EventStatus::New
        );
        assert_eq!(
            rooms.record_event("task:created", &json!({"taskId": "t", "eventId": "03"})),
            EventStatus::New
        );
        assert_eq!(
            rooms.record_event("dashboard:task_count_changed", &json!({"eventId": "99"})),
            EventStatus::New
        );
        assert_eq!(
            rooms.record_event("task:coding", &json!({"taskId": "other", "eventId": "07"})),
            EventStatus::New
        );
        assert_eq!(
            rooms.requests(),
            [
                ("resync_requested", json!({"dashboard": true, "since": "03"})),
                ("resync_requested", json!({"taskIds": ["t"], "since": "06"})),
            ]
        );
        assert_eq!(
            rooms.record_event("task:coding", &json!({"taskId": "t", "eventId": "06"})),
            EventStatus::Duplicate
        );
        assert_eq!(
            rooms.record_event("task:updated", &json!({"taskId": "t", "eventId": "08"})),
            EventStatus::New
        );
        assert_eq!(
            rooms.record_event("task:state", &json!({"taskId": "t", "eventId": "08"})),
            EventStatus::New
        );
    }

    #[test]
    fn a_room_without_an_event_id_is_resumed_with_its_whole_state() {
        let mut rooms = Rooms::new(None);
        rooms.joined(0, &json!({"ok": true, "eventId": 5}));
        rooms.joined(7, &json!(null));
        assert_eq!(rooms.record_event("dashboard:state", &json!([])), EventStatus::New);
        assert_eq!(rooms.requests(), [("resync_requested", json!({"dashboard": true}))]);
    }
}
