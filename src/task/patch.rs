//! The writes that a client may make. They are parsed once, then turned into assignments that fit the document.

mod content;

use serde_json::{Map, Value, json};

use super::{Field, Status, Timestamp, Viewer};

const MAX_TITLE: usize = 500;
const MAX_TEXT: usize = 20_000;
const MAX_ANSWERS: usize = 100;
const PR_STATES: [&str; 4] = ["open", "draft", "merged", "closed"];

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PatchError {
    #[error("the body must be a JSON object")]
    NotAnObject,
    #[error("{name} must be {expected}")]
    Invalid { name: String, expected: &'static str },
    #[error("{0} can't be written; see docs/http.md for the fields that can")]
    UnknownField(String),
    #[error("the body changes nothing: give a status, a field or an event")]
    Empty,
}

/// A task that a user creates.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    title: String,
    description: Option<String>,
    is_private: bool,
    repo: Option<String>,
}

/// The answers to `needs_clarification`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers(Vec<String>);

/// The changes that the pipeline makes to a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPatch {
    assignments: Vec<(Target, Assigned)>,
    event: Option<(String, Map<String, Value>)>,
}

/// The target of an assignment: a visible field, or a field that clients never see.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Field(Field),
    Hidden(&'static str),
}

/// A value for a document. Ids and times have their own variants, because each store has its own type for them.
#[derive(Clone, Debug, PartialEq)]
pub enum Assigned {
    Json(Value),
    Time(Timestamp),
    Id(String),
    Removed,
}

/// One change of a document. The store makes it as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes {
    pub set: Vec<(&'static str, Assigned)>,
    pub push_event: Option<NewEntry>,
}

/// A timeline entry to append.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    pub event_type: String,
    pub payload: Map<String, Value>,
    pub created_at: Timestamp,
}

impl NewTask {
    pub fn parse(body: Value) -> Result<Self, PatchError> {
        let mut title = None;
        let mut task = Self { title: String::new(), description: None, is_private: false, repo: None };
        for (name, value) in object(body)? {
            match name.as_str() {
                "title" => title = Some(required_text(&name, value, MAX_TITLE)?),
                "description" => task.description = optional_text(&name, value, MAX_TEXT)?,
                "repo" => task.repo = repo(&name, value)?,
                "isPrivate" => task.is_private = boolean(&name, value)?,
                _ => return Err(PatchError::UnknownField(name)),
            }
        }
        task.title = title.ok_or_else(|| invalid("title", "a non-empty string"))?;
        Ok(task)
    }

    /// The assignments that make the new document, except its `_id`.
    pub fn writes(self, creator: &Viewer, creator_name: Option<&str>, now: Timestamp) -> Writes {
        let text = |value: String| Assigned::Json(Value::String(value));
        let mut set = vec![
            ("title", text(self.title)),
            ("status", text(Status::Received.to_string())),
            ("createdBy", Assigned::Id(creator.user.to_string())),
            ("isPrivate", Assigned::Json(self.is_private.into())),
            ("createdAt", Assigned::Time(now)),
            ("updatedAt", Assigned::Time(now)),
            ("events", Assigned::Json(json!([]))),
        ];
        set.extend(self.description.map(|value| ("description", text(value))));
        set.extend(self.repo.map(|value| ("repo", text(value))));
        set.extend(creator_name.map(|name| ("creatorName", text(name.to_owned()))));
        set.extend(creator.org.as_ref().map(|org| ("orgId", Assigned::Id(org.to_string()))));
        Writes { set, push_event: None }
    }
}

impl Answers {
    pub fn parse(body: Value) -> Result<Self, PatchError> {
        const EXPECTED: &str = "a non-empty array of at most 100 strings of at most 20000 characters";
        let mut body = object(body)?;
        let Some(Value::Array(items)) = body.remove("answers") else {
            return Err(invalid("answers", EXPECTED));
        };
        if let Some(name) = body.into_iter().map(|(name, _)| name).next() {
            return Err(PatchError::UnknownField(name));
        }
        let answers: Option<Vec<String>> = items
            .into_iter()
            .map(|item| match item {
                Value::String(text) if text.chars().count() <= MAX_TEXT => Some(text),
                _ => None,
            })
            .collect();
        match answers {
            Some(answers) if (1..=MAX_ANSWERS).contains(&answers.len()) => Ok(Self(answers)),
            _ => Err(invalid("answers", EXPECTED)),
        }
    }

    /// The answers, the status `analyzing` and the timeline entry `clarified`.
    pub fn writes(self, now: Timestamp) -> Writes {
        let answers = json!(self.0);
        let payload = Map::from_iter([("answers".to_owned(), answers.clone())]);
        Writes {
            set: vec![
                ("clarificationAnswers", Assigned::Json(answers)),
                ("status", Assigned::Json(Status::Analyzing.as_str().into())),
                ("updatedAt", Assigned::Time(now)),
            ],
            push_event: Some(NewEntry { event_type: "clarified".to_owned(), payload, created_at: now }),
        }
    }
}

impl TaskPatch {
    pub fn parse(body: Value) -> Result<Self, PatchError> {
        let mut patch = Self { assignments: Vec::new(), event: None };
        for (name, value) in object(body)? {
            if name == "event" {
                patch.event = Some(event(value)?);
                continue;
            }
            let target = target(&name).ok_or_else(|| PatchError::UnknownField(name.clone()))?;
            if patch.assignments.iter().any(|(other, _)| *other == target) {
                return Err(invalid(&name, "given once, under one of its two names"));
            }
            patch.assignments.push((target, assigned(target, &name, value)?));
        }
        if patch.assignments.is_empty() && patch.event.is_none() {
            return Err(PatchError::Empty);
        }
        Ok(patch)
    }

    /// The status this patch moves to.
    pub fn status(&self) -> Option<Status<'_>> {
        self.assignments.iter().find_map(|(target, value)| match (target, value) {
            (Target::Field(Field::Status), Assigned::Json(Value::String(status))) => Some(Status::of(status)),
            _ => None,
        })
    }

    /// Returns whether this patch is allowed for a task with the status `current`. A task can't leave `merged`, and can't
    /// return to `received`.
    pub fn allowed_from(&self, current: Status<'_>) -> bool {
        match self.status() {
            None => true,
            Some(next) if next == current => true,
            Some(next) => current != Status::Merged && next != Status::Received,
        }
    }

    /// The assignments, each under the name that the document already has (`has`), otherwise under the `github…` name.
    pub fn writes(self, has: impl Fn(&str) -> bool, now: Timestamp) -> Writes {
        let set = self
            .assignments
            .into_iter()
            .map(|(target, value)| {
                let name = match target {
                    Target::Hidden(name) => name,
                    Target::Field(field) => field.written_name(&has),
                };
                (name, value)
            })
            .chain([("updatedAt", Assigned::Time(now))])
            .collect();
        let push_event =
            self.event.map(|(event_type, payload)| NewEntry { event_type, payload, created_at: now });
        Writes { set, push_event }
    }
}

fn target(name: &str) -> Option<Target> {
    match name {
        "description" => Some(Target::Hidden("description")),
        "creatorName" => Some(Target::Field(Field::Creator)),
        "createdAt" | "updatedAt" | "creator" => None,
        name => Field::ALL
            .into_iter()
            .filter(|field| *field != Field::Creator)
            .find(|field| field.document_names().contains(&name))
            .map(Target::Field),
    }
}

fn assigned(target: Target, name: &str, value: Value) -> Result<Assigned, PatchError> {
    let Target::Field(field) = target else {
        return Ok(optional_text(name, value, MAX_TEXT)?.map_or(Assigned::Removed, json_text));
    };
    match field {
        Field::Status => one_of(
            name,
            value,
            &Status::KNOWN.map(|status| status.as_str()),
            "one of the statuses in docs/http.md",
        ),
        Field::IsPrivate => Ok(Assigned::Json(boolean(name, value)?.into())),
        Field::Title => Ok(json_text(required_text(name, value, MAX_TITLE)?)),
        _ if value.is_null() => Ok(Assigned::Removed),
        Field::PrState => one_of(name, value, &PR_STATES, "open, draft, merged, closed or null"),
        Field::IssueNumber | Field::PrNumber => match value.as_u64() {
            Some(number) if number > 0 && number <= u64::from(u32::MAX) => Ok(Assigned::Json(value)),
            _ => Err(invalid(name, "a positive whole number or null")),
        },
        Field::MergedAt => value
            .as_str()
            .and_then(Timestamp::parse)
            .map(Assigned::Time)
            .ok_or_else(|| invalid(name, "an RFC 3339 time or null")),
        Field::CreatedBy | Field::OrgId => Ok(Assigned::Id(required_text(name, value, MAX_TITLE)?)),
        Field::Questions | Field::ClarificationAnswers => match value {
            Value::Array(_) => Ok(Assigned::Json(value)),
            _ => Err(invalid(name, "an array or null")),
        },
        Field::Repo => Ok(repo(name, value)?.map_or(Assigned::Removed, json_text)),
        _ => Ok(json_text(required_text(name, value, MAX_TEXT)?)),
    }
}

fn one_of(
    name: &str,
    value: Value,
    allowed: &[&str],
    expected: &'static str,
) -> Result<Assigned, PatchError> {
    match value.as_str() {
        Some(text) if allowed.contains(&text) => Ok(Assigned::Json(value)),
        _ => Err(invalid(name, expected)),
    }
}

fn event(value: Value) -> Result<(String, Map<String, Value>), PatchError> {
    const EXPECTED: &str = "an object {eventType: string, payload?: object}";
    let Value::Object(mut map) = value else { return Err(invalid("event", EXPECTED)) };
    let event_type = match map.remove("eventType") {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= 100 => text,
        _ => return Err(invalid("event.eventType", "a non-empty string of at most 100 bytes")),
    };
    let payload = match map.remove("payload") {
        None => Map::new(),
        Some(Value::Object(payload)) => payload,
        Some(_) => return Err(invalid("event.payload", "an object")),
    };
    if map.is_empty() { Ok((event_type, payload)) } else { Err(invalid("event", EXPECTED)) }
}

fn object(body: Value) -> Result<Map<String, Value>, PatchError> {
    match body {
        Value::Object(map) => Ok(map),
        _ => Err(PatchError::NotAnObject),
    }
}

fn required_text(name: &str, value: Value, max: usize) -> Result<String, PatchError> {
    match value {
        Value::String(text) if !text.trim().is_empty() && text.chars().count() <= max => Ok(text),
        _ => Err(invalid(
            name,
            if max == MAX_TITLE {
                "a non-empty string of at most 500 characters"
            } else {
                "a non-empty string of at most 20000 characters"
            },
        )),
    }
}

fn optional_text(name: &str, value: Value, max: usize) -> Result<Option<String>, PatchError> {
    if value.is_null() { Ok(None) } else { required_text(name, value, max).map(Some) }
}

fn boolean(name: &str, value: Value) -> Result<bool, PatchError> {
    value.as_bool().ok_or_else(|| invalid(name, "true or false"))
}

fn repo(name: &str, value: Value) -> Result<Option<String>, PatchError> {
    let word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match value {
        Value::Null => Ok(None),
        Value::String(text)
            if text.len() <= 200
                && text.split_once('/').is_some_and(|(owner, repo)| word(owner) && word(repo)) =>
        {
            Ok(Some(text))
        }
        _ => Err(invalid(name, "\"owner/name\"")),
    }
}

fn json_text(text: String) -> Assigned {
    Assigned::Json(Value::String(text))
}

fn invalid(name: &str, expected: &'static str) -> PatchError {
    PatchError::Invalid { name: name.to_owned(), expected }
}
