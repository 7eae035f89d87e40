//! The JSON records in the tables, and how they are read and written.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::database::Fault;
use crate::{
    feed::{Change, Position, TimelineChange},
    task::{Access, Assigned, DefaultOrg, NamedOrg, NewEntry, Task, TaskId, TimelineEntry, Timestamp},
};

/// A task's document without `events`. Names and types are as in MongoDB, but ids and times are text.
pub(super) type Document = Map<String, Value>;

/// One change. The timeline only grows, so the record needs only the added timeline entries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LogEntry {
    /// Milliseconds since 1970.
    pub at: i64,
    pub before: Option<Document>,
    pub after: Document,
    #[serde(default)]
    pub added: Vec<Value>,
}

impl LogEntry {
    pub(super) fn into_change(self, sequence: u64, default_org: &DefaultOrg) -> Result<Change, Fault> {
        let before = self.before.map(|document| task(document, default_org)).transpose()?;
        let after = task(self.after, default_org)?;
        Ok(Change {
            position: Position::change(sequence, 0),
            occurred_at: Timestamp::from_millis(self.at).unwrap_or_else(Timestamp::now),
            task: after.id.clone(),
            before,
            after: Some(after),
            timeline: TimelineChange::appended(
                self.added.into_iter().map(TimelineEntry::from_document).collect(),
            ),
        })
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Document, Fault> {
    Ok(serde_json::from_slice(bytes)?)
}

/// Decodes only the fields that decide who may see a task. The time of an answer must not reveal the rest to a user who may
/// not see it.
pub(super) fn access(bytes: &[u8], default_org: &DefaultOrg) -> Result<Access, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct AccessFields {
        created_by: Value,
        org_id: Value,
        is_private: Value,
    }
    let AccessFields { created_by, org_id, is_private } = serde_json::from_slice(bytes)?;
    let fields = Access::FIELDS.into_iter().zip([created_by, org_id, is_private]);
    Ok(Access::from_document(&fields.collect(), default_org))
}

/// The organisation that a document names, whatever the default organisation is.
pub(super) fn named_org(document: &Document) -> NamedOrg {
    let [_, org, _] = Access::FIELDS;
    NamedOrg::of(document.get(org))
}

pub(super) fn task(document: Document, default_org: &DefaultOrg) -> Result<Task, Fault> {
    Ok(Task::from_document(document, default_org)?)
}

pub(super) fn entry(bytes: &[u8]) -> Result<TimelineEntry, Fault> {
    Ok(TimelineEntry::from_document(serde_json::from_slice(bytes)?))
}

/// Returns whether a document has a value other than null under `name`.
pub(super) fn has(document: &Document, name: &str) -> bool {
    document.get(name).is_some_and(|value| !value.is_null())
}

pub(super) fn assign(document: &mut Document, name: &str, value: Assigned) {
    let value = match value {
        Assigned::Json(value) => value,
        Assigned::Time(time) => time.to_string().into(),
        Assigned::Id(id) => id.into(),
        Assigned::Removed => {
            document.shift_remove(name);
            return;
        }
    };
    document.insert(name.to_owned(), value);
}

pub(super) fn event(entry: NewEntry) -> Value {
    json!({
        "eventType": entry.event_type,
        "payload": entry.payload,
        "createdAt": entry.created_at.to_string(),
    })
}

/// A new document. Its id looks like an ObjectId, so that a later move to MongoDB can keep it.
pub(super) fn new_document(id: &TaskId) -> Document {
    Map::from_iter([("_id".to_owned(), id.as_str().into())])
}
