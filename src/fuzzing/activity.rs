//! The fuzz target of activity events: reports, hooks of coding agents, schemas and live entities.

use std::sync::LazyLock;

use serde_json::Value;

use super::{CANARY, json_of, well_formed};
use crate::{
    activity::{ClientForm, Event, LiveEntities, Origin, Registry, Report, UnknownTypes, hook_reports},
    position::Position,
    task::{OrgId, Timestamp, UserId, Viewer},
};

/// Lines of JSON: activity events as producers report them, or calls of a coding agent's hook. The events that are accepted
/// become live entities.
pub fn activity(data: &[u8]) {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
        Registry::built_in(UnknownTypes::Reject).unwrap_or_else(|errors| panic!("{errors:?}"))
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    let viewer = UserId::parse("u").map(|user| Viewer { user, org: OrgId::parse("o") });
    let Some(viewer) = viewer else { return };
    let (mut live, mut position) = (LiveEntities::default(), Position::ZERO);
    for line in text.lines().take(100) {
        let Ok(value) = serde_json::from_str::<Value>(&well_formed(line)) else { continue };
        let reports = read(value);
        for report in reports {
            if let Err(problems) = REGISTRY.check(&report) {
                assert!(problems.iter().all(|problem| !problem.message.contains(CANARY)), "{problems:?}");
                assert!(problems.iter().all(|problem| problem.path.len() < 300), "{problems:?}");
                continue;
            }
            position = Position::change(position.time + 1, 0);
            let millis = i64::try_from(position.time).unwrap_or_default().saturating_mul(600_000);
            let Some(timestamp) = Timestamp::from_millis(millis) else { return };
            let origin = Origin { org: viewer.org.clone(), reported_by: Some(viewer.user.clone()) };
            let event = Event::new(report, origin, position, timestamp);
            redacted_texts(&Value::from(event.payload.clone()));
            let form = json_of(&ClientForm(&event));
            assert!(form["eventId"] == position.to_string() && form["payload"].is_object());
            let stored: Result<Event, _> = serde_json::from_value(json_of(&event));
            assert!(
                stored.is_ok_and(|stored| stored == event),
                "an event is not the same after it was stored"
            );
            if let Some(audience) = event.audience(None) {
                live.apply(&REGISTRY, [(audience, &event)]);
            }
            shown_entities(&live, &viewer, timestamp);
        }
    }
}

/// The reports of a line. A hook's may have no field that holds contents or paths.
fn read(value: Value) -> Vec<Report> {
    const DROPPED: [&str; 5] = ["tool_input", "tool_response", "transcript_path", "cwd", "prompt"];
    if let Ok(reports) = hook_reports(&value) {
        for report in &reports {
            assert!(DROPPED.iter().all(|name| !report.payload.contains_key(*name)), "{report:?}");
        }
        return reports;
    }
    match Report::parse(value) {
        Ok(report) => vec![report],
        Err(problems) => {
            assert!(problems.iter().all(|problem| !problem.message.contains(CANARY)), "{problems:?}");
            Vec::new()
        }
    }
}

/// Checks the bounds and the form of all entities, and that a checkpoint is read as the same entities.
fn shown_entities(live: &LiveEntities, viewer: &Viewer, now: Timestamp) {
    for entity in live.entities(viewer, now) {
        let fields: usize =
            entity.fields.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
        assert!(fields <= 8 * 1024, "an entity without bounds");
        let shown = json_of(&entity);
        let names =
            ["kind", "id", "status", "startedAt", "updatedAt", "endedAt", "projectId", "eventId", "counters"];
        assert!(names.iter().all(|name| shown.get(name).is_some()) && shown["counters"].is_object());
    }
    let bytes = live.to_checkpoint().unwrap_or_else(|error| panic!("{error}"));
    let again = LiveEntities::from_checkpoint(&bytes).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.to_checkpoint().ok(), Some(bytes), "a checkpoint is read as something else");
}

/// Checks that no text, array or object is under a key that names a secret.
fn redacted_texts(value: &Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.to_ascii_lowercase();
                let names = [
                    "secret",
                    "password",
                    "apikey",
                    "api_key",
                    "authorization",
                    "credential",
                    "cookie",
                    "token",
                ];
                if names.iter().any(|name| key.contains(name))
                    && (inner.is_string() || inner.is_array() || inner.is_object())
                {
                    assert_eq!(inner, "[redacted]", "{key}");
                } else {
                    redacted_texts(inner);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(redacted_texts),
        _ => {}
    }
}
