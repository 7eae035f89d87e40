//! The requests of clients, parsed once from the name and the arguments of an event.

use serde_json::{Map, Value, value::RawValue};
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::Refusal;

const MAX_ID_BYTES: usize = 256;
const MAX_RESYNC_TASKS: usize = 1000;

/// The events that clients may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum ClientEventName {
    #[strum(serialize = "task:join")]
    TaskJoin,
    #[strum(serialize = "task:leave")]
    TaskLeave,
    #[strum(serialize = "dashboard:join")]
    DashboardJoin,
    #[strum(serialize = "dashboard:leave")]
    DashboardLeave,
    #[strum(serialize = "resync_requested")]
    Resync,
    #[strum(serialize = "auth:refresh")]
    AuthRefresh,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    TaskJoin { task: String },
    TaskLeave { task: String },
    DashboardJoin,
    DashboardLeave,
    Resync(Resync),
    AuthRefresh { token: String },
}

/// The rooms that a client asks the server to send again.
#[derive(Clone, Debug, PartialEq)]
pub enum Resync {
    /// Every room that this connection has joined. A connection without rooms enters the dashboard if an earlier connection of its user
    /// may have ended recently while it had the dashboard.
    AllRooms,
    Rooms {
        tasks: Vec<String>,
        dashboard: bool,
    },
    /// One task: the events after `since`, or a new state.
    TaskSince {
        task: String,
        since: String,
    },
    /// The dashboard: the events after `since`, or a new state.
    DashboardSince {
        since: String,
    },
}

impl ClientEvent {
    pub fn parse(name: ClientEventName, args: &[&RawValue]) -> Result<Self, Refusal> {
        Self::parse_payload(name, args).map_err(|refusal| refusal.of(name))
    }

    fn parse_payload(name: ClientEventName, args: &[&RawValue]) -> Result<Self, Refusal> {
        let mut payload = payload(args)?;
        match name {
            ClientEventName::TaskJoin => Ok(Self::TaskJoin { task: task_id(payload.remove("taskId"))? }),
            ClientEventName::TaskLeave => Ok(Self::TaskLeave { task: task_id(payload.remove("taskId"))? }),
            ClientEventName::DashboardJoin => Ok(Self::DashboardJoin),
            ClientEventName::DashboardLeave => Ok(Self::DashboardLeave),
            ClientEventName::Resync => resync(payload).map(Self::Resync),
            ClientEventName::AuthRefresh => match payload.remove("token") {
                Some(Value::String(token)) if !token.is_empty() => Ok(Self::AuthRefresh { token }),
                _ => Err(Refusal::invalid("token must be a non-empty string")),
            },
        }
    }
}

/// Reads the arguments of an event: one object, or nothing.
fn payload(args: &[&RawValue]) -> Result<Map<String, Value>, Refusal> {
    let malformed = Refusal::invalid("Invalid message format");
    match args {
        [] => Ok(Map::new()),
        [one] => match serde_json::from_str(one.get()) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(Value::Null) => Ok(Map::new()),
            _ => Err(malformed),
        },
        _ => Err(malformed),
    }
}

fn task_id(value: Option<Value>) -> Result<String, Refusal> {
    let Some(Value::String(id)) = value else {
        return Err(Refusal::invalid("taskId must be a non-empty string"));
    };
    if id.is_empty() {
        Err(Refusal::invalid("taskId must be a non-empty string"))
    } else if id.len() > MAX_ID_BYTES {
        Err(Refusal::invalid("taskId must be at most 256 bytes"))
    } else if id.chars().any(char::is_control) {
        Err(Refusal::invalid("taskId must have no control characters"))
    } else {
        Ok(id)
    }
}

fn resync(mut payload: Map<String, Value>) -> Result<Resync, Refusal> {
    let tasks = match payload.remove("taskIds") {
        None | Some(Value::Null) => None,
        Some(Value::Array(items)) if items.len() <= MAX_RESYNC_TASKS => {
            let mut tasks: Vec<String> = Vec::with_capacity(items.len());
            for item in items {
                let id = task_id(Some(item)).map_err(|refusal| match refusal.message {
                    "taskId must be a non-empty string" => {
                        Refusal::invalid("taskIds must be an array of non-empty strings")
                    }
                    _ => refusal,
                })?;
                if !tasks.contains(&id) {
                    tasks.push(id);
                }
            }
            Some(tasks)
        }
        Some(Value::Array(_)) => return Err(Refusal::invalid("taskIds must have at most 1000 entries")),
        Some(_) => return Err(Refusal::invalid("taskIds must be an array of non-empty strings")),
    };
    let dashboard = match payload.remove("dashboard") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(wanted)) => Some(wanted),
        Some(_) => return Err(Refusal::invalid("dashboard must be true or false")),
    };
    let since = match payload.remove("since") {
        None | Some(Value::Null) => None,
        Some(Value::String(since)) if !since.is_empty() && since.len() <= MAX_ID_BYTES => Some(since),
        Some(_) => return Err(Refusal::invalid("since must be an eventId")),
    };
    match (tasks, dashboard, since) {
        (None, None, None) => Ok(Resync::AllRooms),
        (tasks, dashboard, None) => {
            Ok(Resync::Rooms { tasks: tasks.unwrap_or_default(), dashboard: dashboard.unwrap_or(false) })
        }
        (tasks, dashboard, Some(since)) => {
            let mut tasks = tasks.unwrap_or_default();
            match (tasks.pop(), dashboard.unwrap_or(false)) {
                (Some(task), false) if tasks.is_empty() => Ok(Resync::TaskSince { task, since }),
                (None, true) => Ok(Resync::DashboardSince { since }),
                _ => Err(Refusal::invalid(
                    "since needs exactly one room: one taskId in taskIds, or dashboard: true",
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, payload: &str) -> Result<ClientEvent, &'static str> {
        let raw: Box<RawValue> = serde_json::from_str(payload).expect("json");
        ClientEvent::parse(name.parse().expect("a known event"), &[&raw]).map_err(|refusal| refusal.message)
    }

    #[test]
    fn bad_payloads_say_what_is_wrong() {
        for payload in ["1", "\"x\"", "[]", "true"] {
            assert_eq!(parse("task:join", payload), Err("Invalid message format"), "{payload}");
        }
        for payload in ["{}", "null", r#"{"taskId":1}"#, r#"{"taskId":""}"#, r#"{"taskId":{"$ne":null}}"#] {
            assert_eq!(parse("task:join", payload), Err("taskId must be a non-empty string"), "{payload}");
        }
        let deep = format!(r#"{{"taskId":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(parse("task:join", &deep), Err("Invalid message format"));
        assert_eq!(
            parse("task:join", r#"{"taskId":"\u0000"}"#),
            Err("taskId must have no control characters")
        );
        assert_eq!("nonsense".parse::<ClientEventName>().ok(), None);
        assert_eq!(
            parse("resync_requested", r#"{"taskIds":["a","b"],"since":"x"}"#),
            Err("since needs exactly one room: one taskId in taskIds, or dashboard: true")
        );
    }

    #[test]
    fn resync_in_all_its_forms() {
        assert_eq!(parse("resync_requested", "null"), Ok(ClientEvent::Resync(Resync::AllRooms)));
        assert_eq!(parse("resync_requested", "{}"), Ok(ClientEvent::Resync(Resync::AllRooms)));
        assert_eq!(
            parse("resync_requested", r#"{"taskIds":["a","a","b"],"dashboard":true}"#),
            Ok(ClientEvent::Resync(Resync::Rooms { tasks: vec!["a".into(), "b".into()], dashboard: true }))
        );
        assert_eq!(
            parse("resync_requested", r#"{"taskIds":["a"],"since":"p"}"#),
            Ok(ClientEvent::Resync(Resync::TaskSince { task: "a".into(), since: "p".into() }))
        );
        assert_eq!(
            parse("resync_requested", r#"{"dashboard":true,"since":"p"}"#),
            Ok(ClientEvent::Resync(Resync::DashboardSince { since: "p".into() }))
        );
    }
}
