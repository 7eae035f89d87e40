//! Prints one line for each event to the output, and notes about the connection to stderr.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde_json::{Value, json};

use crate::task::Timestamp;

pub(super) struct Printer<W> {
    out: W,
    /// Prints only JSON, with complete states.
    json: bool,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W, json: bool) -> Self {
        Self { out, json }
    }

    pub(super) fn event(&mut self, name: &str, payload: &Value) -> io::Result<()> {
        let line = if self.json {
            json!({ "event": name, "payload": payload }).to_string()
        } else {
            let time = payload.get("occurredAt").and_then(Value::as_str).and_then(Timestamp::parse);
            let time = time.unwrap_or_else(Timestamp::now);
            let payload = summary(name, payload);
            format!("{time} {} {payload}", name.escape_debug())
        };
        writeln!(self.out, "{}", printable(&line))?;
        self.out.flush()
    }

    pub(super) fn note(&self, text: &str) {
        // The client continues when stderr is closed.
        let _ = writeln!(io::stderr(), "-- {}", printable(text));
    }
}

/// A short form of the payload, because states can be very large.
fn summary(name: &str, payload: &Value) -> Value {
    let get = |field: &str| payload.get(field).cloned().unwrap_or_default();
    match name {
        "task:state" => {
            let events = payload.get("events").and_then(Value::as_array).map_or(0, Vec::len) as u64;
            let omitted = payload.get("eventsOmitted").and_then(Value::as_u64).unwrap_or(0);
            json!({
                "taskId": get("taskId"),
                "status": get("status"),
                "title": get("title"),
                "events": events.saturating_add(omitted),
                "eventId": get("eventId"),
            })
        }
        "dashboard:state" => {
            let tasks = payload.get("tasks").unwrap_or(payload);
            json!({ "tasks": tasks.as_array().map_or(0, Vec::len) })
        }
        _ => payload.clone(),
    }
}

/// Escapes control characters. JSON does not escape DEL and the C1 controls, and a terminal would execute them. Written as
/// `\u…`, they have the same meaning in JSON.
fn printable(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len()), |mut text, c| {
        if c.is_control() {
            // Writing to a string never fails.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool, name: &str, payload: Value) -> String {
        let mut out = Vec::new();
        Printer::new(&mut out, json).event(name, &payload).expect("written");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn each_event_is_printed_on_one_line() {
        let payload = json!({"taskId": "t", "status": "coding", "occurredAt": "2026-01-02T03:04:05Z"});
        assert_eq!(
            printed(false, "task:coding", payload.clone()),
            format!("2026-01-02T03:04:05.000Z task:coding {payload}\n")
        );
        assert_eq!(
            printed(true, "task:coding", payload.clone()),
            format!("{{\"event\":\"task:coding\",\"payload\":{payload}}}\n")
        );
    }

    #[test]
    fn states_are_summarised() {
        let state = json!({
            "taskId": "t", "status": "coding", "title": "T", "eventId": "e", "events": [{}, {}],
            "occurredAt": "2026-01-02T03:04:05Z",
        });
        let summary = r#"{"taskId":"t","status":"coding","title":"T","events":2,"eventId":"e"}"#;
        assert_eq!(
            printed(false, "task:state", state.clone()),
            format!("2026-01-02T03:04:05.000Z task:state {summary}\n")
        );
        assert!(printed(true, "task:state", state).contains("[{},{}]"));
        for state in [json!([{}, {}]), json!({"tasks": [{}, {}]})] {
            assert!(printed(false, "dashboard:state", state).ends_with(" dashboard:state {\"tasks\":2}\n"));
        }
        let long = json!({"taskId": "t", "events": [{}, {}], "eventsOmitted": 40});
        assert!(printed(false, "task:state", long).contains(r#""events":42"#));
        for odd in [json!(null), json!(5), json!("x"), json!({"tasks": 5, "events": {}, "eventsOmitted": -1})]
        {
            printed(false, "dashboard:state", odd.clone());
            printed(false, "task:state", odd);
        }
    }

    #[test]
    fn no_text_can_control_the_terminal_or_end_the_line() {
        for json in [false, true] {
            let line =
                printed(json, "a\n\u{1b}[2J", json!({"title": "\u{9b}31m\u{7f}\r\nx", "occurredAt": 5}));
            let text = line.strip_suffix('\n').expect("a line");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let line = printed(true, "a", json!({"title": "\u{9b}"}));
        let read: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["payload"]["title"], "\u{9b}");
    }
}
