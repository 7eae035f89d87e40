//! A stored event, and the forms in which clients and stores get it.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use crate::{
    position::Position,
    task::{Access, OrgId, TaskId, Timestamp, UserId, Viewer},
};

use super::{Audience, EventType, Report, Scope, report::Content};

/// A stored event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "StoredEvent", try_from = "StoredEvent")]
pub struct Event {
    pub position: Position,
    /// When the event was stored. Live entities measure time by it, so a store must never take a time from a document
    /// that is later than the commit of this document.
    pub timestamp: Timestamp,
    pub origin: Origin,
    pub event_type: EventType,
    pub payload: Map<String, Value>,
    pub project: Option<Arc<str>>,
    pub source: Option<Arc<str>>,
    /// The only user who receives the event. Such an event is a notice.
    pub to: Option<UserId>,
    /// The idempotency key of the reporter.
    pub id: Option<Arc<str>>,
    /// The task that the payload names by a text in `task_id`.
    pub task: Option<TaskId>,
}

/// Where an event comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub org: Option<OrgId>,
    /// The user whose token reported the event. A document that another program wrote has none.
    pub reported_by: Option<UserId>,
}

impl Event {
    pub fn new(report: Report, origin: Origin, position: Position, timestamp: Timestamp) -> Self {
        let Report { event_type, payload, id, project, source, to } = report;
        let task = payload.get("task_id").and_then(Value::as_str).and_then(TaskId::of_document);
        Self { position, timestamp, origin, event_type, payload, project, source, to, id, task }
    }

    /// Who may see the event. `task` is the access to the task that the event names, if a store knows that task. `None`
    /// means that nobody may see the event.
    pub fn audience(&self, task: Option<&Access>) -> Option<Audience> {
        let Origin { org, reported_by } = &self.origin;
        let own = Audience::of_reporter(org.as_ref(), reported_by.as_ref())?;
        let own = match &self.to {
            // Users without an organisation are isolated from each other.
            Some(user) if org.is_none() && reported_by.as_ref() != Some(user) => return None,
            Some(user) => Audience::User { user: user.clone(), org: org.clone() },
            None => own,
        };
        // A task of another organisation counts as unknown. Otherwise a reporter could find out that it exists.
        match task.filter(|access| access.org == *org) {
            Some(access) => own.narrowed_by(access),
            None => Some(own),
        }
    }

    /// Returns whether this viewer has reported the event for everybody. It always sees such an event, because an event that disappears
    /// would show that a task exists which the reporter may not see.
    pub fn is_own(&self, viewer: &Viewer) -> bool {
        let Origin { org, reported_by } = &self.origin;
        self.to.is_none() && reported_by.as_ref() == Some(&viewer.user) && *org == viewer.org
    }

    /// The scope that lists the event. `None` means that no viewer may see it.
    pub fn scope(&self) -> Option<Scope> {
        let Origin { org, reported_by } = &self.origin;
        org.clone().map(Scope::Org).or_else(|| reported_by.clone().map(Scope::User))
    }

    /// Returns whether a report with the same idempotency key from the same reporter is a duplicate of this event. If not,
    /// it is a conflict.
    pub fn is_duplicate(&self, report: &Report) -> bool {
        let Self { event_type, payload, project, source, to, .. } = self;
        Content { event_type, payload, project, source, to }.is_same(&report.content())
    }
}

/// An event as every client receives it.
#[derive(Clone, Copy, Debug)]
pub struct ClientForm<'a>(pub &'a Event);

impl Serialize for ClientForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &event.event_type)?;
        map.serialize_entry("payload", &event.payload)?;
        map.serialize_entry("timestamp", &event.timestamp.millis())?;
        map.serialize_entry("eventId", &event.position)?;
        if let Some(project) = &event.project {
            map.serialize_entry("projectId", project)?;
        }
        if let Some(source) = &event.source {
            map.serialize_entry("source", source)?;
        }
        map.end()
    }
}

/// The form in which the embedded store keeps an event.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredEvent {
    position: Position,
    timestamp: i64,
    #[serde(rename = "type")]
    event_type: String,
    payload: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    org_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Arc<str>>,
}

impl From<Event> for StoredEvent {
    fn from(event: Event) -> Self {
        Self {
            position: event.position,
            timestamp: event.timestamp.millis(),
            event_type: event.event_type.to_string(),
            payload: event.payload,
            org_id: event.origin.org.map(|org| org.to_string()),
            reported_by: event.origin.reported_by.map(|user| user.to_string()),
            project_id: event.project,
            source: event.source,
            to: event.to.map(|user| user.to_string()),
            id: event.id,
        }
    }
}

impl TryFrom<StoredEvent> for Event {
    type Error = &'static str;

    fn try_from(stored: StoredEvent) -> Result<Self, Self::Error> {
        let user = |text: Option<String>| text.as_deref().map(UserId::parse);
        let report = Report {
            event_type: EventType::parse(&stored.event_type)
                .map_err(|_| "a stored event has an invalid type")?,
            payload: stored.payload,
            id: stored.id,
            project: stored.project_id,
            source: stored.source,
            to: checked(user(stored.to))?,
        };
        let origin = Origin {
            org: checked(stored.org_id.as_deref().map(OrgId::parse))?,
            reported_by: checked(user(stored.reported_by))?,
        };
        let timestamp =
            Timestamp::from_millis(stored.timestamp).ok_or("a stored event has an invalid timestamp")?;
        Ok(Self::new(report, origin, stored.position, timestamp))
    }
}

/// An id that is there must not be empty. Without this check, a damaged record could have a larger audience.
fn checked<T>(id: Option<Option<T>>) -> Result<Option<T>, &'static str> {
    match id {
        Some(None) => Err("a stored event has an empty id"),
        Some(id) => Ok(id),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
