//! A task as the store has it, reduced to what taskcast knows.

use serde_json::{Map, Value};

use super::{Access, Field, OrgId, Status, TaskId, TimelineEntry, Timestamp};

/// The organisation of tasks and tokens that name none.
#[derive(Clone, Debug, Default)]
pub struct DefaultOrg(pub Option<OrgId>);

impl DefaultOrg {
    pub fn or(&self, named: Option<OrgId>) -> Option<OrgId> {
        named.or_else(|| self.0.clone())
    }
}

/// A task without its timeline. Not `Serialize`: a client sees it only through [`super::view`].
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: TaskId,
    pub access: Access,
    /// By [`Field`]; null where the document has nothing.
    values: [Value; Field::COUNT],
}

/// A task with its timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct FullTask {
    pub task: Task,
    pub timeline: Vec<TimelineEntry>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the document has no usable _id (a string or an ObjectId)")]
    NoId,
}

impl Task {
    /// Reads a document whose BSON types have become JSON ones (ids and times strings). Visible values are
    /// moved out of it; whatever their type is, a client gets them as they are.
    pub fn from_document(
        document: &mut Map<String, Value>,
        default_org: &DefaultOrg,
    ) -> Result<Self, DocumentError> {
        let id = match document.get("_id") {
            Some(Value::String(id)) => TaskId::parse(id).ok_or(DocumentError::NoId)?,
            _ => return Err(DocumentError::NoId),
        };
        let access = Access::from_document(document, default_org);
        let mut values: [Value; Field::COUNT] = Field::ALL.map(|field| match field {
            Field::Creator | Field::CreatedBy | Field::OrgId | Field::IsPrivate => Value::Null,
            Field::CreatedAt | Field::UpdatedAt | Field::MergedAt => {
                Timestamp::normalise(take(document, field))
            }
            field => take(document, field),
        });
        values[Field::Creator as usize] = match take(document, Field::Creator) {
            name @ Value::String(_) => name,
            _ => access.creator.as_ref().map_or(Value::Null, |user| user.as_str().into()),
        };
        values[Field::CreatedBy as usize] =
            access.creator.as_ref().map_or(Value::Null, |user| user.as_str().into());
        values[Field::OrgId as usize] = access.org.as_ref().map_or(Value::Null, |org| org.as_str().into());
        values[Field::IsPrivate as usize] = access.private.into();
        Ok(Self { id, access, values })
    }

    /// Null where the document has nothing.
    pub fn get(&self, field: Field) -> &Value {
        &self.values[field as usize]
    }

    pub fn status(&self) -> Status<'_> {
        Status::of(self.get(Field::Status).as_str().unwrap_or_default())
    }
}

impl FullTask {
    pub fn from_document(
        mut document: Map<String, Value>,
        default_org: &DefaultOrg,
    ) -> Result<Self, DocumentError> {
        let timeline = timeline_of(document.remove("events"));
        Ok(Self { task: Task::from_document(&mut document, default_org)?, timeline })
    }
}

/// The entries of a document's `events`; anything but an array counts as none.
fn timeline_of(events: Option<Value>) -> Vec<TimelineEntry> {
    match events {
        Some(Value::Array(items)) => items.into_iter().map(TimelineEntry::from_document).collect(),
        _ => Vec::new(),
    }
}

fn take(document: &mut Map<String, Value>, field: Field) -> Value {
    for name in field.document_names() {
        match document.get_mut(*name) {
            None | Some(Value::Null) => continue,
            Some(value) => return value.take(),
        }
    }
    Value::Null
}
