//! Converts the `_id` of a document to text, and a text to the values that it may represent. Each conversion is the inverse of the other.
//!
//! MongoDB treats equal numbers of different types as one id, so they have one text. Other values of different types may have the same
//! text, for example the number 42 and the text "42". The first document in MongoDB's order of types is then the task. [`kind`]
//! distinguishes such documents.

use base64::prelude::*;
use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, RawBson, RawBsonRef, RawDocument, Timestamp as ClusterTime, Uuid,
    oid::ObjectId, spec::BinarySubtype,
};

use crate::task::{TaskId, Timestamp};

use super::numbers;

/// The maximum length in bytes of a binary id that is not a UUID. Its text then has at most [`TaskId::MAX_BYTES`] bytes.
pub(super) const MAX_BINARY: usize = 180;
/// The maximum length of a number's text.
const MAX_NUMBER: usize = 64;
const BINARY: &str = "binary:";
const DATE: &str = "date:";
const TIMESTAMP: &str = "timestamp:";

/// The task id of a document. `None` means that the document can't be a task.
pub(super) fn task_id(document: &RawDocument) -> Option<TaskId> {
    id(document.get("_id").ok()??)
}

pub(super) fn id(value: RawBsonRef<'_>) -> Option<TaskId> {
    let id = match value {
        RawBsonRef::String(text) => TaskId::of_document(text),
        other => text(other).as_deref().and_then(TaskId::of_document),
    };
    Some(id?.of_kind(kind(value)?))
}

/// The kind of an id. Two documents whose ids have the same text have different kinds.
fn kind(value: RawBsonRef<'_>) -> Option<u8> {
    Some(match value {
        RawBsonRef::String(_) => TaskId::TEXT,
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) => 2,
        RawBsonRef::Double(number) if number.fract() == 0.0 => 2,
        RawBsonRef::Double(_) => 3,
        RawBsonRef::Decimal128(number) if numbers::is_whole(number) => 2,
        RawBsonRef::Decimal128(_) => 4,
        RawBsonRef::ObjectId(_) => TaskId::OBJECT_ID,
        RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::UuidOld => 6,
        RawBsonRef::Binary(_) => 7,
        RawBsonRef::Boolean(_) => 8,
        RawBsonRef::DateTime(_) => 9,
        RawBsonRef::Timestamp(_) => 10,
        _ => return None,
    })
}

/// The text of a scalar. `None` means that the value is null, not a scalar, or a binary that is too long.
pub(super) fn text(value: RawBsonRef<'_>) -> Option<String> {
    Some(match value {
        RawBsonRef::String(text) => text.to_owned(),
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::Int32(number) => number.to_string(),
        RawBsonRef::Int64(number) => number.to_string(),
        RawBsonRef::Double(number) => numbers::double(number),
        RawBsonRef::Decimal128(number) => numbers::decimal(number),
        RawBsonRef::Boolean(flag) => flag.to_string(),
        RawBsonRef::DateTime(time) => match Timestamp::from_millis(time.timestamp_millis()) {
            Some(time) => time.to_string(),
            None => format!("{DATE}{}", time.timestamp_millis()),
        },
        RawBsonRef::Timestamp(time) => format!("{TIMESTAMP}{}:{}", time.time, time.increment),
        RawBsonRef::Binary(binary) => match (binary.subtype, <[u8; 16]>::try_from(binary.bytes)) {
            (BinarySubtype::Uuid | BinarySubtype::UuidOld, Ok(bytes)) => Uuid::from_bytes(bytes).to_string(),
            // The server's size of this old subtype includes the four bytes of an inner length.
            (BinarySubtype::BinaryOld, _) if binary.bytes.len() > MAX_BINARY - 4 => return None,
            (subtype, _) if binary.bytes.len() <= MAX_BINARY => {
                format!("{BINARY}{}:{}", u8::from(subtype), BASE64_URL_SAFE_NO_PAD.encode(binary.bytes))
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// All values that have this text. Equal numbers of different types are represented by one of them.
pub(super) fn candidates(id: &str) -> Vec<Bson> {
    if TaskId::of_document(id).is_none() {
        return Vec::new();
    }
    let other = others(id).into_iter().filter(|value| {
        let raw = RawBson::try_from(value.clone());
        raw.is_ok_and(|raw| text(raw.as_raw_bson_ref()).as_deref() == Some(id))
    });
    other.chain([Bson::String(id.to_owned())]).collect()
}

/// Values of other types that the text may represent. Some of these values have a different text, so the caller checks them.
fn others(id: &str) -> Vec<Bson> {
    let mut values = Vec::new();
    if is_hex(id) {
        values.extend(ObjectId::parse_str(id).ok().map(Bson::ObjectId));
    }
    if id.len() <= MAX_NUMBER && id.starts_with(|c: char| c.is_ascii_digit() || "-NI".contains(c)) {
        match id.parse::<i64>() {
            Ok(whole) => values.push(Bson::Int64(whole)),
            Err(_) => {
                values.extend(id.parse().ok().map(Bson::Double));
                values.extend(id.parse::<Decimal128>().ok().map(Bson::Decimal128));
            }
        }
    }
    if id.len() == 36
        && let Ok(uuid) = Uuid::parse_str(id)
    {
        values.extend(
            [BinarySubtype::UuidOld, BinarySubtype::Uuid]
                .map(|subtype| binary(subtype, uuid.bytes().to_vec())),
        );
    }
    if id.ends_with('Z') {
        let time = Timestamp::read(id).map(|time| DateTime::from_millis(time.millis()));
        values.extend(time.map(Bson::DateTime));
    }
    values.extend(id.parse().ok().map(Bson::Boolean));
    if let Some(millis) = id.strip_prefix(DATE).and_then(|millis| millis.parse().ok()) {
        values.push(Bson::DateTime(DateTime::from_millis(millis)));
    }
    if let Some((time, increment)) = id.strip_prefix(TIMESTAMP).and_then(|time| time.split_once(':'))
        && let (Ok(time), Ok(increment)) = (time.parse(), increment.parse())
    {
        values.push(Bson::Timestamp(ClusterTime { time, increment }));
    }
    if let Some((subtype, bytes)) = id.strip_prefix(BINARY).and_then(|binary| binary.split_once(':'))
        && let (Ok(subtype), Ok(bytes)) = (subtype.parse::<u8>(), BASE64_URL_SAFE_NO_PAD.decode(bytes))
    {
        values.push(binary(subtype.into(), bytes));
    }
    values
}

fn binary(subtype: BinarySubtype, bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary { subtype, bytes })
}

/// Returns whether the text has the form of an ObjectId.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
