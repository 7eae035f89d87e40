//! Expresses what is written to a task as MongoDB's update operators, and conditions under which an update takes effect.

use mongodb::bson::{Bson, DateTime, Document, RawBson, RawBsonRef, RawDocument, doc, oid::ObjectId};

use super::{
    bson_json::{time_to_bson, to_bson},
    ids::is_hex,
};
use crate::task::{Assigned, NewEntry, Writes};

/// The fields that decide whether a write is allowed.
const CONDITION_FIELDS: [&str; 4] = ["status", "createdBy", "orgId", "isPrivate"];

/// The update, and a filter that matches only while the deciding fields have the values that were read.
pub(super) fn conditional(document: &RawDocument, writes: Writes) -> (Document, Document) {
    let mut condition = Document::new();
    for name in ["_id"].into_iter().chain(CONDITION_FIELDS) {
        condition.insert(name, unchanged(document, name));
    }
    let appends = appends(document);
    if writes.push_event.is_some() && !appends {
        condition.insert("events", unchanged(document, "events"));
    }
    (condition, update(document, writes, appends))
}

/// Returns whether a new entry can be appended to the document's timeline. Otherwise the timeline is not an array, and is replaced.
pub(super) fn appends(document: &RawDocument) -> bool {
    matches!(document.get("events"), Ok(None | Some(RawBsonRef::Array(_))))
}

/// The update operators of `writes`. `appends` means that the document's timeline is an array or absent. Otherwise the update replaces it
/// by an array.
pub(super) fn update(document: &RawDocument, writes: Writes, appends: bool) -> Document {
    let (mut set, mut unset, mut update) = (Document::new(), Document::new(), Document::new());
    for (name, value) in writes.set {
        match assigned_to_bson(value, document.get(name).ok().flatten()) {
            Some(value) => set.insert(name, value),
            None => unset.insert(name, ""),
        };
    }
    match writes.push_event.map(entry_to_bson) {
        Some(entry) if appends => {
            update.insert("$push", doc! {"events": entry});
        }
        Some(entry) => {
            set.insert("events", vec![entry]);
        }
        None => {}
    }
    for (operator, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            update.insert(operator, fields);
        }
    }
    update
}

/// A condition that is true while the field has the same value of the same type.
pub(super) fn unchanged(document: &RawDocument, name: &str) -> Document {
    let value = match document.get(name) {
        Ok(Some(value)) => value,
        Ok(None) => return doc! {"$exists": false},
        // Invalid UTF-8 can't be sent in a filter.
        Err(_) => return doc! {"$exists": true},
    };
    let bson_type = i32::from(value.element_type() as i8);
    let is_array = matches!(value, RawBsonRef::Array(_));
    let not_inside = if is_array {
        doc! {}
    } else {
        doc! {"$not": {"$type": "array"}}
    };
    let mut condition = match Bson::try_from(RawBson::from(value)) {
        Ok(Bson::Undefined) | Err(_) => doc! {},
        Ok(value) => doc! {"$eq": value},
    };
    condition.insert("$type", bson_type);
    condition.extend(not_inside);
    condition
}

/// The new value of a field. `None` means that the field is removed. An id keeps the type that it has in the document.
pub(super) fn assigned_to_bson(value: Assigned, current: Option<RawBsonRef<'_>>) -> Option<Bson> {
    match value {
        Assigned::Json(value) => Some(to_bson(value)),
        Assigned::Time(time) => Some(time_to_bson(time)),
        Assigned::Id(text) => Some(match (current, ObjectId::parse_str(&text)) {
            (Some(RawBsonRef::ObjectId(_)), Ok(id)) if is_hex(&text) => Bson::ObjectId(id),
            _ => Bson::String(text),
        }),
        Assigned::Removed => None,
    }
}

fn entry_to_bson(entry: NewEntry) -> Document {
    doc! {
        "eventType": entry.event_type,
        "payload": to_bson(entry.payload.into()),
        "createdAt": DateTime::from_millis(entry.created_at.millis()),
    }
}
