//! Hooks of coding agents: the JSON that a hook sends, as reports.
//!
//! A hook's JSON may contain prompts, paths, and the input and output of tools, which may hold secrets. Only the fields that
//! are named in this file are read, and no other one is kept.

use serde_json::{Map, Value};

use super::{EventProblem, EventType, Report};

/// The label of these events.
const SOURCE: &str = "hook";
/// A longer text is not an id or a name.
const MAX_TEXT_BYTES: usize = 256;

/// Returns the reports of one call of a hook, in the order in which they are to be stored: always `hook.<name>`, and
/// `session.*` or `agent.*` if a session or a subagent began or ended.
pub fn hook_reports(value: &Value) -> Result<Vec<Report>, EventProblem> {
    let Value::Object(hook) = value else {
        return Err(EventProblem::new("", "a hook must send an object with hook_event_name and session_id"));
    };
    let name = name(hook.get("hook_event_name"))?;
    let session = text(hook, "session_id").ok_or_else(|| {
        EventProblem::new("/session_id", format!("must be a text of 1 to {MAX_TEXT_BYTES} bytes"))
    })?;
    let agent = text(hook, "agent_id");

    let mut payload =
        object([("session_id", Some(session)), ("agent_id", agent), ("tool_name", text(hook, "tool_name"))]);
    if let Some(ok) = succeeded(&name, hook) {
        payload.insert("ok".to_owned(), ok.into());
    }
    if let Some(duration) = hook.get("duration_ms").filter(|value| value.is_number()) {
        payload.insert("duration_ms".to_owned(), duration.clone());
    }
    let own = report(&format!("hook.{name}"), payload)?;

    // An event that begins a run comes first and one that ends a run comes last, so that the hook counts in this run.
    let session_event = |event_type, reason| {
        report(event_type, object([("session_id", Some(session)), ("agent_id", agent), ("reason", reason)]))
    };
    let agent_event = |event_type, agent, name| {
        report(event_type, object([("agent_id", Some(agent)), ("name", name), ("session_id", Some(session))]))
    };
    Ok(match (name.as_str(), agent) {
        ("session_start", _) => vec![session_event("session.started", None)?, own],
        ("session_end", _) => vec![own, session_event("session.ended", word(hook, "reason"))?],
        ("subagent_start", Some(agent)) => {
            vec![agent_event("agent.started", agent, text(hook, "agent_type"))?, own]
        }
        ("subagent_stop", Some(agent)) => {
            vec![own, agent_event("agent.completed", agent, text(hook, "agent_type"))?]
        }
        _ => vec![own],
    })
}

/// The name of a hook in snake case: `PreToolUse` becomes `pre_tool_use`.
fn name(value: Option<&Value>) -> Result<String, EventProblem> {
    let problem = || {
        let message = "must be the name of a hook, such as SessionStart: letters, digits, \"_\" and \"-\"";
        EventProblem::new("/hook_event_name", message)
    };
    let camel = value
        .and_then(Value::as_str)
        .filter(|name| name.len() <= EventType::MAX_BYTES)
        .ok_or_else(problem)?;
    let chars: Vec<char> = camel.chars().collect();
    let mut snake = String::with_capacity(camel.len() + 8);
    for (index, c) in chars.iter().copied().enumerate() {
        let before = index.checked_sub(1).and_then(|index| chars.get(index));
        let after = chars.get(index + 1);
        match c {
            'A'..='Z' => {
                let ends_word = before.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
                let ends_acronym = before.is_some_and(char::is_ascii_uppercase)
                    && after.is_some_and(char::is_ascii_lowercase);
                if ends_word || ends_acronym {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            'a'..='z' | '0'..='9' | '_' => snake.push(c),
            '-' => snake.push('_'),
            _ => return Err(problem()),
        }
    }
    EventType::parse(&format!("hook.{snake}")).map_err(|_| problem())?;
    Ok(snake)
}

/// Whether the tool succeeded, if the hook says so.
fn succeeded(name: &str, hook: &Map<String, Value>) -> Option<bool> {
    let said = hook.get("ok").and_then(Value::as_bool);
    let response = || hook.get("tool_response")?.get("success")?.as_bool();
    let failed = || (name == "post_tool_use_failure").then_some(false);
    said.or_else(failed).or_else(response)
}

fn text<'a>(hook: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    hook.get(key)?.as_str().filter(|text| (1..=MAX_TEXT_BYTES).contains(&text.len()))
}

/// A word of a fixed list, such as why a session ended. A free text could contain anything, so it is not kept.
fn word<'a>(hook: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    text(hook, key)
        .filter(|word| word.len() <= 64 && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')))
}

fn object<const N: usize>(fields: [(&str, Option<&str>); N]) -> Map<String, Value> {
    let present = fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
    present.collect()
}

fn report(event_type: &str, payload: Map<String, Value>) -> Result<Report, EventProblem> {
    let value = serde_json::json!({"type": event_type, "payload": payload, "source": SOURCE});
    Report::parse(value).map_err(|problems| {
        problems.into_iter().next().unwrap_or_else(|| EventProblem::new("", "is not a hook"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::activity::{Registry, UnknownTypes};

    fn reports(value: Value) -> Vec<(String, Value)> {
        let registry = Registry::built_in(UnknownTypes::Reject).expect("built-in schemas");
        let reports = hook_reports(&value).unwrap_or_else(|problem| panic!("{problem}"));
        reports
            .into_iter()
            .map(|report| {
                assert_eq!(registry.check(&report), Ok(()));
                assert_eq!(report.source.as_deref(), Some("hook"));
                (report.event_type.to_string(), Value::Object(report.payload))
            })
            .collect()
    }

    #[test]
    fn only_the_allowed_fields_are_kept() {
        let hook = json!({
            "hook_event_name": "PostToolUse", "session_id": "s", "agent_id": "a", "tool_name": "Bash", "duration_ms": 12,
            "cwd": "/home/canary", "transcript_path": "/canary.jsonl", "prompt": "canary", "permission_mode": "canary",
            "tool_input": {"command": "export TOKEN=canary"}, "tool_response": {"success": true, "stdout": "canary"},
            "tool_use_id": "canary",
        });
        let expected =
            json!({"session_id": "s", "agent_id": "a", "tool_name": "Bash", "ok": true, "duration_ms": 12});
        assert_eq!(reports(hook), [("hook.post_tool_use".to_owned(), expected)]);
    }

    #[test]
    fn starts_and_ends_of_sessions_and_subagents_are_also_events_of_these() {
        let types = |hook: &str, agent: Value| {
            let value = json!({"hook_event_name": hook, "session_id": "s", "agent_id": agent, "agent_type": "Explore",
                "source": "startup", "reason": "clear", "last_assistant_message": "canary"});
            reports(value)
        };
        let hook = |name: &str, payload: Value| (format!("hook.{name}"), payload);
        let s = json!({"session_id": "s"});
        let with_agent = json!({"session_id": "s", "agent_id": "a"});
        assert_eq!(
            types("SessionStart", json!(null)),
            [("session.started".to_owned(), s.clone()), hook("session_start", s.clone())]
        );
        let ended = json!({"session_id": "s", "reason": "clear"});
        assert_eq!(
            types("SessionEnd", json!(null)),
            [hook("session_end", s.clone()), ("session.ended".to_owned(), ended)]
        );
        let agent = json!({"agent_id": "a", "name": "Explore", "session_id": "s"});
        assert_eq!(
            types("SubagentStart", json!("a")),
            [("agent.started".to_owned(), agent.clone()), hook("subagent_start", with_agent.clone())]
        );
        assert_eq!(
            types("SubagentStop", json!("a")),
            [hook("subagent_stop", with_agent), ("agent.completed".to_owned(), agent)]
        );
        assert_eq!(types("SubagentStop", json!(null)), [hook("subagent_stop", s)]);
    }

    #[test]
    fn names_become_snake_case() {
        for (camel, snake) in [
            ("PreToolUse", "pre_tool_use"),
            ("Notification", "notification"),
            ("MCPServerUp", "mcp_server_up"),
            ("beforeShell2Run", "before_shell2_run"),
            ("task-created", "task_created"),
            ("already_snake", "already_snake"),
        ] {
            assert_eq!(name(Some(&json!(camel))).as_deref(), Ok(snake));
        }
        assert_eq!(
            reports(json!({"hook_event_name": "PostToolUseFailure", "session_id": "s"}))
                .first()
                .expect("one")
                .1["ok"],
            false
        );
    }

    #[test]
    fn what_is_not_a_hook_is_refused_with_the_place_of_the_fault() {
        let long = "A".repeat(65);
        for (value, path) in [
            (json!([]), ""),
            (json!({"session_id": "s"}), "/hook_event_name"),
            (json!({"session_id": "s", "hook_event_name": 7}), "/hook_event_name"),
            (json!({"session_id": "s", "hook_event_name": ""}), "/hook_event_name"),
            (json!({"session_id": "s", "hook_event_name": "a b"}), "/hook_event_name"),
            (json!({"session_id": "s", "hook_event_name": "7Up"}), "/hook_event_name"),
            (json!({"session_id": "s", "hook_event_name": "a.b"}), "/hook_event_name"),
            (json!({"session_id": "s", "hook_event_name": long}), "/hook_event_name"),
            (json!({"hook_event_name": "Stop"}), "/session_id"),
            (json!({"hook_event_name": "Stop", "session_id": ""}), "/session_id"),
            (json!({"hook_event_name": "Stop", "session_id": "x".repeat(257)}), "/session_id"),
        ] {
            let problem = hook_reports(&value).expect_err("a problem");
            assert_eq!(problem.path, path, "{value}");
        }
    }

    #[test]
    fn unusable_optional_fields_are_left_out() {
        let hook = json!({"hook_event_name": "SessionEnd", "session_id": "s", "agent_id": 7, "tool_name": "x".repeat(257),
            "ok": "yes", "duration_ms": "long", "reason": "a prompt, or anything else"});
        let payloads: Vec<Value> = reports(hook).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(payloads, [json!({"session_id": "s"}), json!({"session_id": "s"})]);
    }
}
