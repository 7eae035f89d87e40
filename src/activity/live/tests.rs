//! What live entities show, example by example. `properties.rs` has what holds for all events.

use serde_json::{Value, json};

use super::*;
use crate::{
    activity::{Audience, Event, Origin, Registry, Report, UnknownTypes},
    position::Position,
    task::{OrgId, Timestamp, UserId, Viewer},
};

mod properties;

/// A time of which all times in these tests are a little later.
const T0: i64 = 1_767_221_517_000;
const HOUR: i64 = 3_600_000;

fn registry() -> Registry {
    Registry::built_in(UnknownTypes::Reject).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).expect("in range")
}

fn org() -> OrgId {
    OrgId::parse("acme").expect("an id")
}

fn member(user: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("an id"), org: Some(org()) }
}

fn own(user: &str) -> Audience {
    Audience::User { user: member(user).user, org: Some(org()) }
}

/// The events of a test, each one second after the one before.
struct Feed {
    registry: Registry,
    live: LiveEntities,
    time: u64,
    millis: i64,
}

impl Feed {
    fn new() -> Self {
        Self { registry: registry(), live: LiveEntities::default(), time: 0, millis: T0 }
    }

    fn next(&mut self, event_type: &str, project: Option<&str>, payload: Value) -> Event {
        self.time += 1;
        self.millis += 1_000;
        let report = Report::parse(json!({"type": event_type, "payload": payload, "projectId": project}))
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(self.registry.check(&report), Ok(()));
        let origin = Origin { org: Some(org()), reported_by: UserId::parse("u") };
        Event::new(report, origin, Position::change(self.time, 0), time(self.millis))
    }

    /// Applies an event that the whole organisation sees, and returns the kinds and ids of the changed entities.
    fn public(&mut self, event_type: &str, payload: Value) -> Vec<String> {
        self.send(event_type, Some("web"), payload, Audience::Org(org()))
    }

    fn send(
        &mut self,
        event_type: &str,
        project: Option<&str>,
        payload: Value,
        audience: Audience,
    ) -> Vec<String> {
        let event = self.next(event_type, project, payload);
        let changes = self.live.apply(&self.registry, [(audience, &event)]);
        changes
            .into_iter()
            .map(|change| {
                assert_eq!(change.position, event.position);
                format!("{}/{}", change.key.kind, change.key.id)
            })
            .collect()
    }

    fn shown_to(&self, viewer: &Viewer, kind: &str) -> Vec<Value> {
        let now = time(self.millis);
        let entities = self.live.entities_of_kind(viewer, kind, now);
        entities.map(|entity| serde_json::to_value(entity).expect("serialises")).collect()
    }

    fn one(&self, kind: &str) -> Value {
        let mut shown = self.shown_to(&member("u"), kind);
        assert_eq!(shown.len(), 1, "{shown:?}");
        shown.remove(0)
    }
}

fn run(story: &str) -> Value {
    json!({"story_key": story, "command": "dev-story", "task_id": "t1"})
}

fn with(mut payload: Value, key: &str, value: Value) -> Value {
    payload[key] = value;
    payload
}

#[test]
fn a_command_from_start_to_end() {
    let mut feed = Feed::new();
    assert_eq!(feed.public("command:start", run("1-2")), ["command/t1"]);
    feed.public("command:progress", with(run("1-2"), "message", json!("tests pass")));
    let end = with(with(run("1-2"), "status", json!("ok")), "metrics", json!({"tokens": 12}));
    feed.public("command:end", end);
    assert_eq!(
        feed.one("command"),
        json!({
            "kind": "command", "id": "t1", "status": "ok", "startedAt": T0 + 1_000, "updatedAt": T0 + 3_000,
            "endedAt": T0 + 3_000, "staleAt": null, "projectId": "web", "eventId": Position::change(3, 0).to_string(),
            "counters": {}, "story_key": "1-2", "command": "dev-story", "task_id": "t1", "message": "tests pass",
            "metrics": {"tokens": 12},
        })
    );
}

#[test]
fn a_new_run_keeps_nothing_of_the_one_before() {
    let mut feed = Feed::new();
    feed.public("agent.started", json!({"agent_id": "a"}));
    feed.public("agent.failed", json!({"agent_id": "a", "error": "boom"}));
    feed.public("agent.updated", json!({"agent_id": "a", "message": "late"}));
    let failed = feed.one("agent");
    assert_eq!((&failed["status"], &failed["message"]), (&json!("failed"), &json!("late")));
    assert_eq!(failed["endedAt"], T0 + 2_000);
    feed.public("agent.started", json!({"agent_id": "a"}));
    let again = feed.one("agent");
    assert_eq!(
        (&again["status"], again.get("error"), &again["startedAt"]),
        (&json!("running"), None, &json!(T0 + 4_000))
    );
    // A second start of a run is news of it.
    feed.public("agent.started", json!({"agent_id": "a"}));
    assert_eq!(feed.one("agent")["startedAt"], T0 + 4_000);
    // A command begins anew, whether or not its end was reported.
    feed.public("command:start", run("1-2"));
    feed.public("command:progress", with(run("1-2"), "message", json!("m")));
    feed.public("command:start", run("1-3"));
    let command = feed.one("command");
    assert_eq!((command.get("message"), &command["startedAt"]), (None, &command["updatedAt"]));
}

#[test]
fn a_cycle_belongs_to_its_projects_open_batch() {
    let mut feed = Feed::new();
    assert!(feed.public("cycle:start", json!({"cycle_number": 1, "story_keys": []})).is_empty());
    feed.public("batch:start", json!({"batch_id": 7, "max_cycles": "all"}));
    let audience = Audience::Org(org());
    feed.send("batch:start", Some("api"), json!({"batch_id": 9, "max_cycles": 1}), audience.clone());
    assert_eq!(feed.public("cycle:start", json!({"cycle_number": 1, "story_keys": ["a"]})), ["batch/7"]);
    assert_eq!(feed.public("cycle:end", json!({"cycle_number": 1, "completed_stories": ["a"]})), ["batch/7"]);
    let batch = || json!([feed.shown_to(&member("u"), "batch")[0]]);
    assert_eq!(
        batch()[0]["cycle"],
        json!({"cycle_number": 1, "story_keys": ["a"], "completed_stories": ["a"], "status": "completed",
            "startedAt": T0 + 4_000, "endedAt": T0 + 5_000})
    );
    assert_eq!((&batch()[0]["status"], &batch()[0]["counters"]), (&json!("running"), &json!({"cycles": 1})));
    feed.public("cycle:start", json!({"cycle_number": 2, "story_keys": ["b"]}));
    let cycle = feed.shown_to(&member("u"), "batch")[0]["cycle"].clone();
    assert_eq!(
        cycle,
        json!({"cycle_number": 2, "story_keys": ["b"], "status": "running", "startedAt": T0 + 6_000, "endedAt": null})
    );
    feed.public("batch:end", json!({"batch_id": 7, "cycles_completed": 1, "status": "stopped"}));
    assert_eq!(feed.shown_to(&member("u"), "batch")[0]["status"], "stopped");
    assert!(feed.public("cycle:end", json!({"cycle_number": 2, "completed_stories": []})).is_empty());
    let viewer = member("u");
    let newest = feed.live.newest_open(&viewer, "batch", time(feed.millis)).expect("an open batch");
    assert_eq!(&*newest.key.id, "9");
    feed.send(
        "batch:end",
        Some("api"),
        json!({"batch_id": 9, "cycles_completed": 0, "status": "error"}),
        audience,
    );
    assert_eq!(feed.live.newest_open(&viewer, "batch", time(feed.millis)), None);
}

#[test]
fn messages_tool_calls_and_hooks_are_counted_and_their_content_is_not_kept() {
    let mut feed = Feed::new();
    feed.public("session.started", json!({"session_id": "s", "title": "T"}));
    let message = json!({"session_id": "s", "message_id": "m", "role": "assistant", "delta": "canary", "content": "canary"});
    feed.public("session.message", message.clone());
    feed.public("session.message", message);
    let call = json!({"server_name": "git", "tool_name": "log", "session_id": "s", "ok": true});
    assert_eq!(feed.public("mcp.tool_called", call), ["mcp_server/git", "session/s"]);
    feed.public("mcp.tool_called", json!({"server_name": "git", "tool_name": "log"}));
    feed.public("hook.pre_tool_use", json!({"session_id": "s", "tool_name": "Bash"}));
    let session = feed.one("session");
    assert_eq!(session["counters"], json!({"messages": 2, "tool_calls": 1, "hooks": 1}));
    assert_eq!((&session["title"], &session["tool_name"]), (&json!("T"), &json!("Bash")));
    assert!(!session.to_string().contains("canary"));
    assert_eq!(feed.one("mcp_server")["counters"], json!({"tool_calls": 2}));
}

#[test]
fn an_event_without_a_project_is_about_the_entity_that_is_known_by_its_id() {
    let mut feed = Feed::new();
    let message = json!({"session_id": "s", "message_id": "m", "role": "user"});
    let org_audience = || Audience::Org(org());
    feed.public("session.started", json!({"session_id": "s"}));
    feed.send("session.message", None, message.clone(), org_audience());
    assert_eq!(feed.one("session")["counters"], json!({"messages": 1}));
    // Nobody knows which of two sessions is meant, so it is a third one.
    feed.send("session.started", Some("api"), json!({"session_id": "s"}), org_audience());
    feed.send("session.message", None, message, org_audience());
    let shown = feed.shown_to(&member("u"), "session");
    let projects: Vec<&Value> = shown.iter().map(|entity| &entity["projectId"]).collect();
    assert_eq!(projects, [&json!(null), &json!("api"), &json!("web")]);
}

#[test]
fn an_entity_without_news_is_stale_and_then_removed() {
    let mut feed = Feed::new();
    feed.public("agent.started", json!({"agent_id": "a"}));
    let (started, viewer) = (feed.millis, member("u"));
    let at = |millis: i64| {
        feed.live.entities(&viewer, time(millis)).next().map(|entity| entity.status.map(str::to_owned))
    };
    let status = |text: &str| Some(Some(text.to_owned()));
    assert_eq!(at(started + 2 * HOUR - 1), status("running"));
    assert_eq!(at(started + 2 * HOUR), status("stale"));
    assert_eq!(at(started + 4 * HOUR - 1), status("stale"));
    assert_eq!(at(started + 4 * HOUR), None);
    assert_eq!(feed.one("agent")["staleAt"], started + 2 * HOUR);
    // The fold itself removes it only when a later event shows that the time is over.
    feed.millis = started + 4 * HOUR - 1_000;
    assert_eq!(feed.public("memory.updated", json!({"key": "k"})), ["agent/a", "memory/k"]);
    assert_eq!(feed.live.len(), 1);
}

#[test]
fn an_entity_that_ended_stays_for_an_hour() {
    let mut feed = Feed::new();
    feed.public("memory.deleted", json!({"key": "k"}));
    let (ended, viewer) = (feed.millis, member("u"));
    assert_eq!(feed.live.entities(&viewer, time(ended + HOUR - 1)).count(), 1);
    assert_eq!(feed.live.entities(&viewer, time(ended + HOUR)).count(), 0);
    feed.millis = ended + HOUR - 1_000;
    assert_eq!(feed.public("error", json!({"type": "t", "message": "m"})), ["memory/k"]);
    assert!(feed.live.is_empty());
}

#[test]
fn a_private_entity_is_shown_to_its_user_only_and_merged_with_the_public_one() {
    let mut feed = Feed::new();
    let agent = |message: &str| json!({"agent_id": "a", "message": message});
    feed.public("agent.started", agent("public"));
    feed.send("agent.updated", Some("web"), agent("private"), own("v"));
    feed.send("agent_alert", Some("web"), json!({"agent_id": "a", "message": "m"}), own("v"));
    feed.public("agent_alert", json!({"agent_id": "a", "message": "m"}));
    feed.send("agent.started", Some("web"), json!({"agent_id": "hidden"}), own("v"));

    let [public] = &feed.shown_to(&member("u"), "agent")[..] else { panic!("one agent") };
    assert_eq!((&public["message"], &public["counters"]), (&json!("public"), &json!({"alerts": 1})));
    let shown = feed.shown_to(&member("v"), "agent");
    let [both, _] = &shown[..] else { panic!("two agents") };
    assert_eq!((&both["message"], &both["counters"]), (&json!("private"), &json!({"alerts": 2})));
    assert_eq!((&both["startedAt"], &both["updatedAt"]), (&json!(T0 + 1_000), &json!(T0 + 4_000)));
    assert_eq!(both["eventId"], Position::change(4, 0).to_string());

    let outsider = Viewer { user: member("v").user, org: None };
    assert!(feed.shown_to(&outsider, "agent").is_empty());
    let key = EntityKey { kind: "agent".into(), id: "a".into(), project: Some("web".into()) };
    assert_eq!(feed.live.users_with_own_copy(&key).collect::<Vec<_>>(), [&member("v").user]);
    let now = time(feed.millis);
    assert_eq!(feed.live.public_entity(&key, now), feed.live.entity(&member("u"), &key, now));
    // The public run is over when the private one begins.
    feed.public("agent.completed", agent("done"));
    feed.send("agent.started", Some("web"), json!({"agent_id": "a"}), own("v"));
    assert_eq!(feed.shown_to(&member("v"), "agent")[0]["status"], "running");
    assert_eq!(feed.shown_to(&member("u"), "agent")[0]["status"], "completed");
}

#[test]
fn a_notice_changes_nothing() {
    let mut feed = Feed::new();
    let mut notice = feed.next("agent.started", None, json!({"agent_id": "a"}));
    notice.to = UserId::parse("v");
    assert_eq!(feed.live.apply(&feed.registry, [(own("v"), &notice)]), []);
    assert!(feed.live.is_empty() && feed.live.position() == notice.position);
}

#[test]
fn a_payload_field_never_replaces_what_every_entity_has() {
    let mut feed = Feed::new();
    let own_names = json!({"kind": 1, "id": 2, "status": "open", "startedAt": 3, "updatedAt": 4, "endedAt": 5, "staleAt": 6,
        "projectId": 7, "eventId": 8, "counters": 9, "task_id": "t", "project_id": "web"});
    feed.public("task.created", own_names);
    let task = feed.one("task");
    assert_eq!(
        task,
        json!({"kind": "task", "id": "t", "status": "open", "startedAt": T0 + 1_000, "updatedAt": T0 + 1_000, "endedAt": null,
            "staleAt": null, "projectId": "web", "eventId": Position::change(1, 0).to_string(), "counters": {},
            "task_id": "t", "project_id": "web"})
    );
}

#[test]
fn fields_without_room_are_left_out() {
    let mut feed = Feed::new();
    let big = "x".repeat(5_000);
    feed.public("agent.updated", json!({"agent_id": "a", "message": big, "error": "old"}));
    feed.public("agent.updated", json!({"agent_id": "a", "error": big}));
    let agent = feed.one("agent");
    assert_eq!(
        (&agent["message"], agent.get("error")),
        (&json!(big), None),
        "an outdated value would be wrong"
    );
    let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("n{n:02}"), json!(n))).collect();
    feed.public("stats.updated", many.into());
    assert_eq!(feed.one("stats").as_object().expect("an object").len(), 10 + 64);
}

#[test]
fn above_the_limit_ended_entities_are_dropped_first_and_then_the_oldest_news() {
    let mut feed = Feed::new();
    let key = |n: usize| json!({"key": format!("k{n:04}")});
    for n in 0..LiveEntities::MAX {
        feed.public("memory.updated", key(n));
        feed.millis -= 1_000;
    }
    feed.public("memory.deleted", key(5));
    feed.public("memory.updated", key(0));
    assert_eq!(feed.public("memory.updated", key(9_000)), ["memory/k0005", "memory/k9000"]);
    assert_eq!(feed.public("memory.updated", key(9_001)), ["memory/k0001", "memory/k9001"]);
    assert_eq!(feed.live.len(), LiveEntities::MAX);
}

#[test]
fn an_operators_type_has_live_entities_too() {
    let file = r#"{"x-taskcast": {"type": "build.done", "live": [{"kind": "build", "id": "build", "ends": true,
        "status": {"field": "result", "else": "unknown"}, "count": "builds"}]},
        "properties": {"build": {}, "result": {}}}"#;
    let mut feed = Feed::new();
    feed.registry = Registry::with_files(UnknownTypes::Reject, [("b.json", file)]).expect("a schema");
    feed.public("build.done", json!({"build": 7, "result": "green"}));
    let build = feed.one("build");
    assert_eq!(
        (&build["id"], &build["status"], &build["counters"]),
        (&json!("7"), &json!("green"), &json!({"builds": 1}))
    );
    for odd in [json!({}), json!({"build": null}), json!({"build": [1]}), json!({"build": ""})] {
        assert!(feed.public("build.done", odd).is_empty());
    }
    feed.public("build.done", json!({"build": 8, "result": 5}));
    assert_eq!(feed.shown_to(&member("u"), "build")[1]["status"], "unknown");
}

#[test]
fn a_checkpoint_of_another_version_or_a_damaged_one_is_refused() {
    let mut feed = Feed::new();
    feed.public("agent.started", json!({"agent_id": "a"}));
    let json = feed.live.to_checkpoint().expect("serialises");
    let mut value: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(value["version"], 1);
    value["version"] = json!(2);
    let other = LiveEntities::from_checkpoint(value.to_string().as_bytes()).expect_err("an error");
    assert!(matches!(other, CheckpointError::Version(2)));
    for end in [0, 1, json.len() / 2, json.len() - 1] {
        assert!(matches!(LiveEntities::from_checkpoint(&json[..end]), Err(CheckpointError::Damaged(_))));
    }
}

/// The form that is on disk somewhere. It must stay readable.
#[test]
fn the_first_version_of_a_checkpoint_stays_readable() {
    let stored = json!({"version": 1, "position": "0000000000000007-000000-000000", "clock": T0, "entities": [{
        "key": {"kind": "agent", "id": "a", "project": "web"}, "audience": {"org": "acme"},
        "copy": {"begun": "0000000000000006-000000-000000",
            "lastStart": {"position": "0000000000000006-000000-000000", "starts": "after_end"},
            "position": "0000000000000007-000000-000000", "startedAt": T0, "updatedAt": T0,
            "status": {"position": "0000000000000007-000000-000000", "text": "failed"},
            "ended": {"position": "0000000000000007-000000-000000", "at": T0}, "staleAfter": {"position": "0000000000000006-000000-000000", "millis": 7_200_000},
            "counters": {"alerts": 2}, "fields": {"error": {"position": "0000000000000007-000000-000000", "bytes": 11, "value": "boom"}}}}]});
    let live = LiveEntities::from_checkpoint(stored.to_string().as_bytes()).expect("a checkpoint");
    assert_eq!(live.position(), Position::change(7, 0));
    let viewer = member("u");
    let shown: Vec<Value> = live
        .entities(&viewer, time(T0))
        .map(|entity| serde_json::to_value(entity).expect("serialises"))
        .collect();
    assert_eq!((&shown[0]["status"], &shown[0]["error"]), (&json!("failed"), &json!("boom")));
    let again: Value = serde_json::from_slice(&live.to_checkpoint().expect("serialises")).expect("JSON");
    assert_eq!(again, stored);
}
