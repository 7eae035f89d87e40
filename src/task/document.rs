//! A task as it is stored, reduced to the fields that taskcast knows.

use serde_json::Value;

use super::{Access, Field, OrgId, Status, TaskId, TimelineEntry, Timestamp, Window};

/// The organisation of tasks and tokens that name none.
#[derive(Clone, Debug, Default)]
pub struct DefaultOrg(pub Option<OrgId>);

impl DefaultOrg {
    pub fn or(&self, named: Option<OrgId>) -> Option<OrgId> {
        named.or_else(|| self.0.clone())
    }
}

/// The top-level fields of a document. There are few, so a linear search is faster than hashing.
#[derive(Debug)]
pub struct Fields<K>(Vec<(K, Value)>);

impl<K> FromIterator<(K, Value)> for Fields<K> {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl<K: AsRef<str>> Fields<K> {
    /// Returns the first value if the name occurs twice. MongoDB's filters look at the first one as well.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.as_ref() == name).map(|(_, value)| value)
    }

    fn take(&mut self, name: &str) -> Value {
        let found = self.0.iter_mut().find(|(key, _)| key.as_ref() == name);
        found.map_or(Value::Null, |(_, value)| value.take())
    }

    /// Takes the first value that is not null under one of the field's names.
    fn take_field(&mut self, field: Field) -> Value {
        let mut values = field.document_names().iter().map(|name| self.take(name));
        values.find(|value| !value.is_null()).unwrap_or_default()
    }
}

/// A task without its timeline. Not `Serialize`: a client sees it only through [`super::client_view`].
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: TaskId,
    pub access: Access,
    /// Indexed by [`Field`]. A value is null if the document does not have the field.
    values: [Value; Field::COUNT],
}

/// A task with its timeline, or with some successive entries of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FullTask {
    pub task: Task,
    /// Oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// How many older entries are left out.
    pub older: usize,
    /// How many newer entries are left out.
    pub newer: usize,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the document has no usable _id; docs/http.md lists the types that the _id of a task can have")]
    NoId,
}

impl Task {
    /// Reads a document whose BSON types have become JSON ones (ids and times are strings). Visible values may have any type.
    /// The creator, the access fields and the times are normalised; clients get all other values unchanged.
    pub fn from_document<K: AsRef<str>>(
        document: impl IntoIterator<Item = (K, Value)>,
        default_org: &DefaultOrg,
    ) -> Result<Self, DocumentError> {
        Self::from_fields(&mut document.into_iter().collect(), default_org)
    }

    fn from_fields<K: AsRef<str>>(
        document: &mut Fields<K>,
        default_org: &DefaultOrg,
    ) -> Result<Self, DocumentError> {
        let id = match document.get("_id") {
            Some(Value::String(id)) => TaskId::of_document(id).ok_or(DocumentError::NoId)?,
            _ => return Err(DocumentError::NoId),
        };
        let access = Access::from_document(document, default_org);
        let mut values: [Value; Field::COUNT] = Field::ALL.map(|field| match field {
            Field::Creator | Field::CreatedBy | Field::OrgId | Field::IsPrivate => Value::Null,
            Field::CreatedAt | Field::UpdatedAt | Field::MergedAt => {
                Timestamp::normalise(document.take_field(field))
            }
            field => document.take_field(field),
        });
        values[Field::Creator as usize] = match document.take_field(Field::Creator) {
            name @ Value::String(_) => name,
            _ => access.creator.as_ref().map_or(Value::Null, |user| user.as_str().into()),
        };
        values[Field::CreatedBy as usize] =
            access.creator.as_ref().map_or(Value::Null, |user| user.as_str().into());
        values[Field::OrgId as usize] = access.org.as_ref().map_or(Value::Null, |org| org.as_str().into());
        values[Field::IsPrivate as usize] = access.private.into();
        Ok(Self { id, access, values })
    }

    /// Returns null if the document does not have the field.
    pub fn get(&self, field: Field) -> &Value {
        &self.values[field as usize]
    }

    pub fn status(&self) -> Status<'_> {
        Status::of(self.get(Field::Status).as_str().unwrap_or_default())
    }
}

impl FullTask {
    pub fn from_document<K: AsRef<str>>(
        document: impl IntoIterator<Item = (K, Value)>,
        default_org: &DefaultOrg,
    ) -> Result<Self, DocumentError> {
        let mut document: Fields<K> = document.into_iter().collect();
        let timeline = timeline_of(document.take("events"));
        Ok(Self { task: Task::from_fields(&mut document, default_org)?, timeline, older: 0, newer: 0 })
    }

    /// `timeline` has the entries in `window` of a timeline with `length` entries.
    pub fn with_part(task: Task, timeline: Vec<TimelineEntry>, window: Window, length: usize) -> Self {
        let range = window.range_in(length);
        Self { task, timeline, older: range.start, newer: length - range.end }
    }
}

/// The entries of a document's `events`. A value that is not an array counts as an empty timeline.
fn timeline_of(events: Value) -> Vec<TimelineEntry> {
    match events {
        Value::Array(items) => items.into_iter().map(TimelineEntry::from_document).collect(),
        _ => Vec::new(),
    }
}
