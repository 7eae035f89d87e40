//! Decodes an event of the change stream, after the pipeline, to a [`Change`].

use mongodb::bson::RawDocument;

use super::{
    pipeline::{ADDED, AFTER, BEFORE, TIMELINE},
    task_document,
};
use crate::{
    feed::{Change, GapReason, Position, TimelineChange},
    rate_limited_log::rate_limited_log,
    task::{DefaultOrg, DocumentError, Task, TimelineEntry, Timestamp},
};

/// The meaning of an event for the feed.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    Change(Box<Change>),
    /// The event concerns no task that a client can know.
    Nothing,
    /// The event does not show what happened. The field is the reason.
    Lost(GapReason),
}

/// The cluster time of an event: the seconds in the high 32 bits, the increment in the low 32 bits. Every event has one.
pub(super) fn cluster_time(event: &RawDocument) -> Option<u64> {
    let time = event.get_timestamp("clusterTime").ok()?;
    Some(u64::from(time.time) << 32 | u64::from(time.increment))
}

pub(super) fn decode(event: &RawDocument, position: Position, default_org: &DefaultOrg) -> Decoded {
    let image = |name| image(event, name, default_org);
    let (before, after) = match event.get_str("operationType") {
        Ok("insert") => (None, image("fullDocument")),
        Ok("update" | "replace") => {
            let Some(before) = image("fullDocumentBeforeChange") else {
                return Decoded::Lost(GapReason::Image);
            };
            (Some(before), image("fullDocument"))
        }
        Ok("delete") => match image("fullDocumentBeforeChange") {
            Some(before) => return change(event, position, Some(before), None, TimelineChange::Unchanged),
            None => return Decoded::Lost(GapReason::Image),
        },
        Ok("drop" | "rename" | "dropDatabase" | "invalidate") => {
            return Decoded::Lost(GapReason::Dropped);
        }
        _ => return Decoded::Nothing,
    };
    match after {
        Some(after) => change(event, position, before, Some(after), timeline(event)),
        None => Decoded::Lost(GapReason::Image),
    }
}

/// Decodes bytes that may not be a valid event.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_change(bytes: &[u8], position: Position, default_org: &DefaultOrg) -> Option<Change> {
    let event = RawDocument::from_bytes(bytes).ok()?;
    cluster_time(event);
    match decode(event, position, default_org) {
        Decoded::Change(change) => Some(*change),
        Decoded::Nothing | Decoded::Lost(_) => None,
    }
}

type Image = Result<Task, DocumentError>;

/// `None` means that the server sent no image.
fn image(event: &RawDocument, name: &str, default_org: &DefaultOrg) -> Option<Image> {
    let image = event.get_document(name).ok()?;
    Some(task_document::task(image, default_org))
}

fn change(
    event: &RawDocument,
    position: Position,
    before: Option<Image>,
    after: Option<Image>,
    timeline: TimelineChange,
) -> Decoded {
    let (before, after) = match (before.transpose(), after.transpose()) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => {
            rate_limited_log!(warn, %error, "a changed document can't be read as a task, so clients do not get this change");
            return Decoded::Nothing;
        }
    };
    let Some(task) = after.as_ref().or(before.as_ref()).map(|task| task.id.clone()) else {
        return Decoded::Nothing;
    };
    let occurred_at = occurred_at(event, position);
    Decoded::Change(Box::new(Change { position, occurred_at, task, before, after, timeline }))
}

fn occurred_at(event: &RawDocument, position: Position) -> Timestamp {
    let seconds = i64::try_from(position.time >> 32).unwrap_or_default();
    event
        .get_datetime("wallTime")
        .ok()
        .and_then(|time| Timestamp::from_millis(time.timestamp_millis()))
        .or_else(|| Timestamp::from_millis(seconds * 1000))
        .unwrap_or_else(Timestamp::now)
}

fn timeline(event: &RawDocument) -> TimelineChange {
    let Ok(described) = event.get_document(TIMELINE) else { return TimelineChange::Unchanged };
    let entries = |name: &str| -> Vec<TimelineEntry> {
        let items = described.get_array(name).map(task_document::entries).unwrap_or_default();
        items.into_iter().map(TimelineEntry::from_document).collect()
    };
    match described.get_array(BEFORE) {
        Ok(_) => TimelineChange::between(&entries(BEFORE), entries(AFTER)),
        Err(_) => TimelineChange::appended(entries(ADDED)),
    }
}
