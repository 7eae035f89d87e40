//! The messages about tasks that the fan-out itself makes.

use serde::Serialize;

use crate::{
    feed::Position,
    task::{Counts, TaskId},
    wire::{Message, emitted},
};

#[derive(Serialize)]
struct CountsChanged {
    #[serde(flatten)]
    counts: Counts,
    #[serde(rename = "eventId")]
    event_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted<'a> {
    task_id: &'a TaskId,
    event_id: String,
}

pub(super) fn deleted(task: &TaskId, at: Position) -> Message {
    Message::event(emitted::TASK_DELETED, &Deleted { task_id: task, event_id: at.to_string() }, at)
}

pub(super) fn counts_changed(counts: Counts, position: Position) -> Message {
    let payload = CountsChanged { counts, event_id: position.to_string() };
    Message::event(emitted::DASHBOARD_TASK_COUNT_CHANGED, &payload, position)
}
