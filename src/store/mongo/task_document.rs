//! Defines the meaning of a document's values by their BSON types. Filters with the same meaning are in `select.rs`.
//!
//! - A text is a BSON string of valid UTF-8. Symbols and code are not texts.
//! - `createdBy` is a text or an ObjectId. Any other value names no user.
//! - `orgId` is a text or an ObjectId. A missing value, null and the empty text name the default organisation. Any other value names none.
//! - `isPrivate`: a missing value, null and false mean public. Any other value means private.
//! - `status` is a text. Other values that JSON could represent only as a string are null.
//! - A time is a date, a text that [`Timestamp::read`] reads, a number, or a BSON timestamp. Any other value is null.

use mongodb::bson::{RawArray, RawBsonRef, RawDocument, raw::RawElement};
use serde_json::{Map, Value};

use super::{bson_json, ids, select::TIMELINE_LENGTH};
use crate::task::{DefaultOrg, DocumentError, Fields, FullTask, Task, Timestamp, Window};

/// Stands for an invalid value: it names no user and no organisation, and makes a task private.
const INVALID: Value = Value::Bool(true);

pub(super) fn task(document: &RawDocument, default_org: &DefaultOrg) -> Result<Task, DocumentError> {
    let mut task = Task::from_document(fields(document), default_org)?;
    task.id = ids::task_id(document).ok_or(DocumentError::NoId)?;
    Ok(task)
}

pub(super) fn full_task(document: &RawDocument, default_org: &DefaultOrg) -> Result<FullTask, DocumentError> {
    let mut full = FullTask::from_document(fields(document), default_org)?;
    full.task.id = ids::task_id(document).ok_or(DocumentError::NoId)?;
    Ok(full)
}

/// Decodes a document that was read with `select::windowed_task_fields`.
pub(super) fn windowed_task(
    document: &RawDocument,
    window: Window,
    default_org: &DefaultOrg,
) -> Result<FullTask, DocumentError> {
    let FullTask { task, timeline, .. } = full_task(document, default_org)?;
    let reported = document.get_i32(TIMELINE_LENGTH).ok().and_then(|length| usize::try_from(length).ok());
    let length = reported.unwrap_or(timeline.len());
    Ok(FullTask::with_part(task, timeline, window, length))
}

/// The top-level fields of a document.
pub(super) fn fields(document: &RawDocument) -> impl Iterator<Item = (&str, Value)> {
    let elements = document.iter_elements().map_while(Result::ok);
    elements.map(|element| (element.key().as_str(), value(&element)))
}

pub(super) fn top_level_fields(document: &RawDocument) -> Fields<&str> {
    fields(document).collect()
}

/// The entries of a timeline.
pub(super) fn entries(array: &RawArray) -> Vec<Value> {
    array.iter_elements().map_while(Result::ok).map(|element| entry(&element)).collect()
}

fn value(element: &RawElement<'_>) -> Value {
    match element.key().as_str() {
        "_id" => {
            let id = element.value().ok().and_then(ids::id);
            id.map_or(Value::Null, |id| id.as_str().into())
        }
        "createdBy" | "orgId" => match element.value() {
            Ok(RawBsonRef::String(name)) => name.into(),
            Ok(RawBsonRef::ObjectId(id)) => id.to_hex().into(),
            Ok(RawBsonRef::Null) => Value::Null,
            _ => INVALID,
        },
        "isPrivate" => match element.value() {
            Ok(RawBsonRef::Null) => Value::Null,
            Ok(RawBsonRef::Boolean(private)) => private.into(),
            _ => INVALID,
        },
        "status" => match element.value() {
            Ok(RawBsonRef::String(status)) => status.into(),
            _ => match bson_json::value(element, 0) {
                Value::String(_) => Value::Null,
                other => other,
            },
        },
        "createdAt" | "updatedAt" | "mergedAt" => time(element),
        "events" => match element.value() {
            Ok(RawBsonRef::Array(array)) => Value::Array(entries(array)),
            _ => Value::Null,
        },
        _ => bson_json::value(element, 0),
    }
}

fn entry(element: &RawElement<'_>) -> Value {
    let Ok(RawBsonRef::Document(document)) = element.value() else {
        return bson_json::value(element, 1);
    };
    let fields = document.iter_elements().map_while(Result::ok).map(|element| {
        let key = element.key().as_str();
        let value = if key == "createdAt" { time(&element) } else { bson_json::value(&element, 2) };
        (key.to_owned(), value)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

/// The time in RFC 3339 format, or null if the value is not a time.
fn time(element: &RawElement<'_>) -> Value {
    let time = match element.value() {
        Ok(RawBsonRef::String(text)) => return Timestamp::normalise(text.into()),
        Ok(RawBsonRef::DateTime(time)) => Timestamp::from_millis(time.timestamp_millis()),
        Ok(RawBsonRef::Int32(number)) => Timestamp::of_number(number.into()),
        Ok(RawBsonRef::Int64(number)) => Timestamp::of_number(number as f64),
        Ok(RawBsonRef::Double(number)) => Timestamp::of_number(number),
        Ok(RawBsonRef::Decimal128(number)) => number.to_string().parse().ok().and_then(Timestamp::of_number),
        Ok(RawBsonRef::Timestamp(time)) => Timestamp::from_millis(i64::from(time.time) * 1000),
        _ => None,
    };
    time.map_or(Value::Null, |time| time.to_string().into())
}

/// The milliseconds of `createdAt`. `None` means that the task is sorted after all tasks with a time.
pub(super) fn created_at(document: &RawDocument) -> Option<i64> {
    let elements = document.iter_elements().map_while(Result::ok);
    let written = elements.into_iter().find(|element| element.key().as_str() == "createdAt");
    written.and_then(|element| Timestamp::read(time(&element).as_str()?)).map(Timestamp::millis)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{
        Bson, DateTime, Document, RawDocumentBuf, Timestamp as ClusterTime, doc, oid::ObjectId,
    };

    use super::*;
    use crate::task::{Field, OrgId};

    fn read(document: Document) -> FullTask {
        let default_org = DefaultOrg(OrgId::parse("default"));
        full_task(&RawDocumentBuf::try_from(&document).expect("encodes"), &default_org).expect("a task")
    }

    #[test]
    fn only_texts_and_object_ids_name_a_user_or_an_organisation() {
        let id = ObjectId::new();
        for (value, org) in [
            (Bson::from("acme"), Some("acme".to_owned())),
            (id.into(), Some(id.to_hex())),
            (Bson::Null, Some("default".to_owned())),
            ("".into(), Some("default".to_owned())),
            (Bson::Symbol("acme".into()), None),
            (Bson::JavaScriptCode("acme".into()), None),
            (Bson::Undefined, None),
            (Bson::Decimal128("5".parse().expect("a decimal")), None),
            (Bson::Array(vec!["acme".into()]), None),
            (5.into(), None),
        ] {
            let task = read(doc! {"_id": "t", "orgId": value.clone(), "createdBy": value.clone()}).task;
            assert_eq!(task.access.org.map(|org| org.to_string()), org, "{value:?}");
            let creator = task.access.creator.map(|user| user.to_string());
            assert_eq!(creator, org.filter(|org| org != "default"), "{value:?}");
        }
        for (value, private) in
            [(Bson::Null, false), (false.into(), false), (Bson::Undefined, true), ("".into(), true)]
        {
            assert_eq!(read(doc! {"_id": "t", "isPrivate": value}).task.access.private, private);
        }
    }

    #[test]
    fn invalid_utf8_names_no_user_and_no_organisation() {
        let document = doc! {"_id": "t", "orgId": "xyz", "createdBy": "xyz", "status": "xyz", "title": "xyz"};
        let mut bytes = RawDocumentBuf::try_from(&document).expect("encodes").into_bytes();
        for index in 0..bytes.len() - 3 {
            if &bytes[index..index + 3] == b"xyz" {
                bytes[index] = 0xff;
            }
        }
        let document = RawDocumentBuf::from_bytes(bytes).expect("a document");
        let read = task(&document, &DefaultOrg(OrgId::parse("default"))).expect("a task");
        assert_eq!((&read.access.org, &read.access.creator), (&None, &None));
        assert_eq!(read.get(Field::Status), &Value::Null);
        assert_eq!(read.get(Field::Title), "\u{fffd}yz");
    }

    #[test]
    fn times_of_every_type_have_the_same_text() {
        let written = "2025-12-31T22:51:57.000Z";
        for time in [
            Bson::DateTime(DateTime::from_millis(1_767_221_517_000)),
            Bson::Int32(1_767_221_517),
            Bson::Int64(1_767_221_517_000),
            Bson::Double(1_767_221_517.0),
            Bson::Decimal128("1767221517".parse().expect("a decimal")),
            Bson::Timestamp(ClusterTime { time: 1_767_221_517, increment: 3 }),
            "2025-12-31 22:51:57".into(),
        ] {
            let document =
                doc! {"_id": "t", "createdAt": time.clone(), "events": [{"createdAt": time.clone()}]};
            let full = read(document);
            assert_eq!(full.task.get(Field::CreatedAt), written, "{time:?}");
            let entry = serde_json::to_value(&full.timeline[0]).expect("serialises");
            assert_eq!(entry["createdAt"], written, "{time:?}");
        }
        for invalid in [
            Bson::DateTime(DateTime::MAX),
            Bson::JavaScriptCode("2026-01-01".into()),
            Bson::Symbol("2026-01-01".into()),
            Bson::Array(vec![DateTime::now().into()]),
            true.into(),
            f64::NAN.into(),
        ] {
            let task = read(doc! {"_id": "t", "createdAt": invalid.clone()}).task;
            assert_eq!(task.get(Field::CreatedAt), &Value::Null, "{invalid:?}");
        }
    }
}
