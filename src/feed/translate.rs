//! Translates a change into the events that clients get. This module does no I/O.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use crate::{
    task::{
        Access, Field, FullTask, FullView, Status, Summary, Task, TaskId, TimelineEntry, Timestamp, Window,
    },
    wire::{Message, emitted},
};

use super::{Change, CountChange, Position, TimelineChange};

/// The most room events that the fan-out sends in one turn. A change with more events is split into several steps.
const EVENTS_PER_STEP: usize = 64;

/// An event, encoded once for all clients.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: &'static str,
    pub position: Position,
    pub message: Message,
}

/// The events of a change that the fan-out sends in one turn, each with its audience.
#[derive(Clone, Debug)]
pub struct Step {
    /// The position of the last event. The last step of a change has the position after the change.
    pub position: Position,
    pub occurred_at: Timestamp,
    pub task: TaskId,
    /// The access to the task before this step. `None` means that the task did not exist.
    pub before: Option<Access>,
    /// The access to the task from this step on. `None` means that the task is deleted.
    pub after: Option<Access>,
    /// The event for members of the task's room that no longer see the task. It is the last event that they get.
    pub ended: Option<Event>,
    /// The events for members of the task's room.
    pub room: Vec<Event>,
    /// The events for dashboards that see the task.
    pub listed: Vec<Event>,
    /// The event for dashboards that saw the task and no longer see it.
    pub unlisted: Option<Event>,
    /// The effect of the step on counts.
    pub counted: CountChange,
}

impl Step {
    /// Every event of the step, for every audience.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.ended.iter().chain(&self.room).chain(&self.listed).chain(&self.unlisted)
    }
}

/// Returns the events of one change, in the order of the contract. There are none if nothing visible changed. A state has
/// the newest `timeline_limit` entries of the timeline.
pub fn translate(change: &Change, timeline_limit: usize) -> Vec<Step> {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    if before == after && change.timeline == TimelineChange::Unchanged {
        return Vec::new();
    }
    let mut numbered = Numbered { change, index: 0 };
    let ended = match (before, after) {
        (Some(was), after) if after.is_none_or(|is| is.access != was.access) => {
            Some(numbered.event(emitted::TASK_DELETED, was, &only_id(&change.task)))
        }
        _ => None,
    };
    let mut room = match (before, after) {
        (Some(was), Some(is)) => room_events(&mut numbered, was, is, timeline_limit),
        _ => Vec::new(),
    };
    let mut listed = Vec::new();
    if let Some(task) = after {
        if before.is_none() {
            listed.push(numbered.event(emitted::TASK_CREATED, task, &Created(task)));
        }
        listed.push(numbered.view(emitted::DASHBOARD_TASK_LIST_UPDATED, &Summary(task)));
    }
    let unlisted = ended
        .is_some()
        .then(|| {
            before.map(|was| numbered.event(emitted::DASHBOARD_TASK_REMOVED, was, &only_id(&change.task)))
        })
        .flatten();

    let (was, is) = (before.map(|task| task.access.clone()), after.map(|task| task.access.clone()));
    let mut steps = Vec::new();
    let mut last = Step {
        position: change.position.end_of_change(),
        occurred_at: change.occurred_at,
        task: change.task.clone(),
        before: was,
        after: is.clone(),
        ended,
        room: Vec::new(),
        listed,
        unlisted,
        counted: CountChange::of(before, after),
    };
    while room.len() > EVENTS_PER_STEP {
        let rest = room.split_off(EVENTS_PER_STEP);
        let chunk = std::mem::replace(&mut room, rest);
        steps.push(Step {
            position: chunk.last().map_or(change.position, |event| event.position),
            ended: last.ended.take(),
            room: chunk,
            listed: Vec::new(),
            unlisted: last.unlisted.take(),
            counted: CountChange::default(),
            ..last.clone()
        });
        last.before = is.clone();
    }
    last.room = room;
    steps.push(last);
    steps
}

fn room_events(numbered: &mut Numbered<'_>, was: &Task, is: &Task, timeline_limit: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut carried: Vec<Field> = vec![Field::UpdatedAt];
    if answers(is) > answers(was) {
        const FIELDS: &[Field] = &[Field::ClarificationAnswers, Field::IssueUrl, Field::IssueNumber];
        events.push(numbered.event(emitted::TASK_CLARIFIED, is, &Carrying { task: is, fields: FIELDS }));
        carried.push(Field::Status);
        carried.extend(FIELDS);
    }
    if is.get(Field::Status) != was.get(Field::Status)
        && let Some((name, fields)) = status_event(is)
    {
        events.push(numbered.event(name, is, &Carrying { task: is, fields }));
        carried.push(Field::Status);
        carried.extend(fields);
    }
    let changed: Map<String, Value> = Field::ALL
        .into_iter()
        .filter(|field| is.get(*field) != was.get(*field) && !carried.contains(field))
        .flat_map(|field| {
            field.sent_names().iter().map(move |name| ((*name).to_owned(), is.get(field).clone()))
        })
        .collect();
    if !changed.is_empty() {
        events.push(numbered.event(
            emitted::TASK_UPDATED,
            is,
            &Updated { task_id: &is.id, status: is.get(Field::Status), changed },
        ));
    }
    let change = numbered.change;
    match &change.timeline {
        TimelineChange::Unchanged => {}
        TimelineChange::Added(entries) => {
            for entry in entries {
                let added = EventAdded { task_id: &is.id, event: entry };
                events.push(numbered.event(emitted::TASK_EVENT_ADDED, is, &added));
            }
        }
        // The state is the last event, because it contains the others. A client applies every event that follows a state, so
        // a state must not be followed by events that it contains.
        TimelineChange::Rewritten(timeline) => {
            let full = newest(is, timeline, timeline_limit);
            events.push(numbered.view(emitted::TASK_STATE, &FullView(&full)));
        }
    }
    events
}

fn newest(task: &Task, timeline: &[TimelineEntry], limit: usize) -> FullTask {
    let window = Window::newest(limit);
    let entries = timeline[window.range_in(timeline.len())].to_vec();
    FullTask::with_part(task.clone(), entries, window, timeline.len())
}

/// The event for a status, and the fields that the event carries.
fn status_event(task: &Task) -> Option<(&'static str, &'static [Field])> {
    use Field::{
        ErrorMessage, GithubBranch, IssueNumber, IssueUrl, MergeCommitSha, MergedAt, PrNumber, PrState,
        PrTitle, PrUrl, Questions,
    };
    Some(match task.status() {
        Status::Analyzing => (emitted::TASK_ANALYZING, &[]),
        Status::Coding => (emitted::TASK_CODING, &[]),
        Status::NeedsClarification => (emitted::TASK_CLARIFICATION_NEEDED, &[Questions]),
        Status::Dispatched => (emitted::TASK_DISPATCHED, &[IssueNumber, IssueUrl, GithubBranch]),
        Status::PrOpen => (emitted::TASK_PR_OPENED, &[PrNumber, PrUrl, PrTitle, PrState]),
        Status::Merged => (emitted::TASK_PR_MERGED, &[MergeCommitSha, MergedAt]),
        Status::Failed if is_empty(task.get(ErrorMessage)) && !task.get(PrNumber).is_null() => {
            (emitted::TASK_PR_CLOSED, &[PrNumber])
        }
        Status::Failed => (emitted::TASK_FAILED, &[ErrorMessage]),
        Status::Received | Status::Unknown(_) => return None,
    })
}

/// Mongoose may write an empty string instead of null.
fn is_empty(text: &Value) -> bool {
    text.is_null() || text.as_str() == Some("")
}

/// The number of answers that a task has.
fn answers(task: &Task) -> usize {
    match task.get(Field::ClarificationAnswers) {
        Value::Null => 0,
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 1,
    }
}

/// Gives the events of a change their positions and the envelope that each carries.
struct Numbered<'a> {
    change: &'a Change,
    index: u32,
}

impl Numbered<'_> {
    fn event(&mut self, name: &'static str, task: &Task, payload: &impl Serialize) -> Event {
        self.enveloped(name, payload, Some(task.get(Field::UpdatedAt)))
    }

    /// A view has the task's `updatedAt` already.
    fn view(&mut self, name: &'static str, payload: &impl Serialize) -> Event {
        self.enveloped(name, payload, None)
    }

    fn enveloped(
        &mut self,
        name: &'static str,
        payload: &impl Serialize,
        updated_at: Option<&Value>,
    ) -> Event {
        let position = self.change.position.with_index(self.index);
        self.index = self.index.saturating_add(1);
        let occurred_at = self.change.occurred_at;
        let envelope = Enveloped { payload, event_id: position, occurred_at, updated_at };
        Event { name, position, message: Message::event_at(name, &envelope, position, occurred_at.millis()) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Enveloped<'a, T: Serialize> {
    #[serde(flatten)]
    payload: &'a T,
    #[serde(serialize_with = "display")]
    event_id: Position,
    #[serde(serialize_with = "display")]
    occurred_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<&'a Value>,
}

fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnlyId<'a> {
    task_id: &'a TaskId,
}

fn only_id(task_id: &TaskId) -> OnlyId<'_> {
    OnlyId { task_id }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Updated<'a> {
    task_id: &'a TaskId,
    status: &'a Value,
    changed: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventAdded<'a> {
    task_id: &'a TaskId,
    event: &'a crate::task::TimelineEntry,
}

/// `{taskId, status, …fields}`.
struct Carrying<'a> {
    task: &'a Task,
    fields: &'static [Field],
}

impl Serialize for Carrying<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("taskId", &self.task.id)?;
        map.serialize_entry("status", self.task.get(Field::Status))?;
        for field in self.fields {
            map.serialize_entry(field.sent_names()[0], self.task.get(*field))?;
        }
        map.end()
    }
}

struct Created<'a>(&'a Task);

impl Serialize for Created<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("taskId", &self.0.id)?;
        for field in [Field::Title, Field::Creator, Field::Status, Field::CreatedAt] {
            map.serialize_entry(field.sent_names()[0], self.0.get(field))?;
        }
        map.end()
    }
}
