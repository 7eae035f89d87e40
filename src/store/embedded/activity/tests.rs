//! Batches, idempotency keys, pages and retention.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    activity::{Origin, Pattern, Report},
    feed::Position,
    store::{
        ActivityStore, AppendError, Appended, EmbeddedConfig, EmbeddedStore, EventBatch, EventPage,
        EventQuery, NewEvent, RetentionLimits, Store, TaskWrite, WriteRequest,
    },
    task::{DefaultOrg, NewTask, OrgId, Timestamp, UserId, Viewer},
};

struct World {
    folder: TempDir,
    store: EmbeddedStore,
}

fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

fn open(folder: &TempDir) -> EmbeddedStore {
    let config = EmbeddedConfig { data_dir: folder.path().to_owned(), default_org: DefaultOrg(None) };
    EmbeddedStore::open(config).expect("a store")
}

fn all() -> EventQuery {
    EventQuery { limit: 1000, ..EventQuery::default() }
}

fn log_line(n: usize) -> Value {
    json!({"type": "log.line", "payload": {"level": "info", "message": n.to_string()}})
}

fn payloads(page: &EventPage) -> Vec<Value> {
    page.events.iter().map(|event| Value::Object(event.payload.clone())).collect()
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = open(&folder);
        Self { folder, store }
    }

    /// Closes the store and opens its file again.
    fn restart(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        let store = open(&folder);
        Self { folder, store }
    }

    async fn append(&self, by: &Viewer, events: Vec<Value>) -> Result<Appended, AppendError> {
        let events = events.into_iter().map(|event| {
            let report = Report::parse(event).expect("a report");
            let high_volume = report.event_type.as_str() == "log.line";
            NewEvent { report, high_volume }
        });
        let origin = Origin { org: by.org.clone(), reported_by: Some(by.user.clone()) };
        self.store.append(EventBatch { origin, events: events.collect() }).await
    }

    async fn page(&self, by: &Viewer, query: EventQuery) -> EventPage {
        self.store.events(by, &query).await.expect("a page")
    }

    async fn private_task(&self, by: &Viewer) -> String {
        let task = NewTask::parse(json!({"title": "t", "isPrivate": true})).expect("a task");
        let write = TaskWrite::Create { task, creator_name: None };
        let written = self.store.write(WriteRequest::new(by.clone(), write)).await.expect("written");
        written.into_written().expect("a task").task.task.id.to_string()
    }
}

fn step(n: usize) -> Value {
    json!({"type": "custom.step", "payload": {"n": n}})
}

#[tokio::test]
async fn events_survive_a_restart_in_their_order() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let first = world.append(&alice, vec![step(1), step(2)]).await.expect("stored");
    assert_eq!((first.accepted, first.duplicates), (2, 0));
    let world = world.restart();
    let second = world.append(&alice, vec![step(3)]).await.expect("stored");
    assert!(second.last > first.last);
    let page = world.page(&viewer("bob", "acme"), all()).await;
    assert_eq!(payloads(&page), [json!({"n": 3}), json!({"n": 2}), json!({"n": 1})]);
    assert_eq!(page.events[0].position, second.last);
    assert_eq!(page.events[1].position, first.last);
    assert_eq!(page.next, None);
}

#[tokio::test]
async fn a_batch_with_a_conflict_stores_nothing() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let with_id = |n, id| json!({"type": "custom.step", "payload": {"n": n}, "id": id});
    let stored = world.append(&alice, vec![with_id(1, "a")]).await.expect("stored");
    let again = world.append(&alice, vec![with_id(1, "a")]).await.expect("a duplicate");
    assert_eq!(again, Appended { accepted: 0, duplicates: 1, last: stored.last });

    let conflict = world.append(&alice, vec![step(2), with_id(3, "b"), with_id(4, "a")]).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { index: 2 })), "{conflict:?}");
    let conflict = world.append(&alice, vec![with_id(5, "c"), with_id(6, "c")]).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { index: 1 })), "{conflict:?}");
    assert_eq!(payloads(&world.page(&alice, all()).await), [json!({"n": 1})]);

    let same = json!({"type": "custom.step", "payload": {"n": 7.0}, "id": "d"});
    let twice = world.append(&alice, vec![with_id(7, "d"), same]).await.expect("stored");
    assert_eq!((twice.accepted, twice.duplicates), (1, 1));
    // The keys belong to the reporter, and to the organisation of its token.
    for other in [viewer("bob", "acme"), viewer("alice", "globex"), viewer("alice", "")] {
        assert_eq!(world.append(&other, vec![with_id(8, "a")]).await.expect("stored").accepted, 1);
    }
}

#[tokio::test]
async fn concurrent_reports_with_one_id_are_stored_once() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let report = || world.append(&alice, vec![json!({"type": "custom.step", "payload": {}, "id": "a"})]);
    let all_at_once = futures_util::future::join_all((0..20).map(|_| report())).await;
    let accepted = all_at_once.into_iter().map(|appended| appended.expect("stored").accepted);
    assert_eq!(accepted.sum::<usize>(), 1);
}

#[tokio::test]
async fn nobody_sees_an_event_of_another_organisation_or_of_a_private_task() {
    let world = World::new();
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "acme"));
    let task = world.private_task(&alice).await;
    let of_task = json!({"type": "custom.step", "payload": {"n": 2, "task_id": task}});
    let notice = json!({"type": "custom.step", "payload": {"n": 3}, "to": "bob"});
    world.append(&alice, vec![step(1), of_task.clone(), notice]).await.expect("stored");
    // Bob can't learn from his own report whether the task exists, because he sees it in any case.
    world.append(&bob, vec![of_task]).await.expect("stored");
    let seen =
        |page: EventPage| page.events.iter().map(|event| event.payload["n"].clone()).collect::<Vec<_>>();
    assert_eq!(seen(world.page(&alice, all()).await), [2, 2, 1]);
    assert_eq!(seen(world.page(&bob, all()).await), [2, 3, 1]);
    assert_eq!(seen(world.page(&viewer("carol", "acme"), all()).await), [1]);
    for stranger in [viewer("alice", "globex"), viewer("alice", ""), viewer("carol", "")] {
        assert_eq!(world.page(&stranger, all()).await, EventPage::default());
    }
    // Without an organisation, only the reporter sees an event.
    world.append(&viewer("carol", ""), vec![step(4)]).await.expect("stored");
    assert_eq!(seen(world.page(&viewer("carol", ""), all()).await), [4]);
    // Users without an organisation can't send anything to each other.
    let notice = json!({"type": "custom.step", "payload": {"n": 5}, "to": "dave"});
    world.append(&viewer("carol", ""), vec![notice]).await.expect("stored");
    assert!(world.page(&viewer("dave", ""), all()).await.events.is_empty());
    // A task of another organisation is like a task that does not exist.
    let foreign = json!({"type": "custom.step", "payload": {"n": 6, "task_id": task}});
    world.append(&viewer("erin", "globex"), vec![foreign]).await.expect("stored");
    assert_eq!(seen(world.page(&viewer("frank", "globex"), all()).await), [6]);
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_and_repetitions() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let appended = world.append(&alice, (0..25).map(step).collect()).await.expect("stored");
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = world.page(&alice, EventQuery { before, limit: 10, ..EventQuery::default() }).await;
        seen.extend(page.events.iter().filter_map(|event| event.payload["n"].as_u64()));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<u64>>());
    let since = |time| EventQuery { since: Some(Position::change(time, 0)), ..all() };
    assert_eq!(world.page(&alice, since(appended.last.time - 2)).await.events.len(), 2);
    assert!(world.page(&alice, since(appended.last.time)).await.events.is_empty());
    let none = EventQuery { before: Some(Position::change(1, 0)), ..since(appended.last.time) };
    assert!(world.page(&alice, none).await.events.is_empty());
}

#[tokio::test]
async fn a_page_of_large_events_ends_early() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let large = |n: usize| json!({"type": "custom.step", "payload": {"n": n, "text": "x".repeat(30_000)}});
    world.append(&alice, (0..300).map(large).collect()).await.expect("stored");
    let first = world.page(&alice, all()).await;
    assert!((30..40).contains(&first.events.len()), "about 1 MiB: {}", first.events.len());
    let next = world.page(&alice, EventQuery { before: first.next, ..all() }).await;
    assert_eq!(next.events[0].payload["n"], 300 - first.events.len() - 1);
    // A page that selects nothing examines a limited number of bytes.
    let patterns = vec![Pattern::parse("other:*").expect("a pattern")];
    let nothing = world.page(&alice, EventQuery { patterns, ..all() }).await;
    assert!(nothing.events.is_empty() && nothing.next.is_some());
}

#[tokio::test]
async fn patterns_and_projects_select_events() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let other = json!({"type": "other:step", "payload": {"n": 2}, "projectId": "web"});
    world.append(&alice, vec![step(1), other, log_line(3)]).await.expect("stored");
    let seen = async |patterns: &[&str], projects: &[&str]| {
        let patterns = patterns.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect();
        let projects = projects.iter().map(|id| Arc::from(*id)).collect();
        let page = world.page(&alice, EventQuery { patterns, projects, ..all() }).await;
        page.events.iter().map(|event| event.event_type.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&[], &[]).await, ["other:step", "custom.step"], "high-volume types must be named");
    assert_eq!(seen(&["*"], &["web"]).await, ["other:step"]);
    assert_eq!(seen(&["log.*", "custom.step"], &[]).await, ["log.line", "custom.step"]);
    assert!(seen(&["log.*"], &["web"]).await.is_empty());
}

#[tokio::test]
async fn events_are_removed_when_their_retention_ends() {
    let (world, alice) = (World::new(), viewer("alice", "acme"));
    let with_id = json!({"type": "custom.step", "payload": {"n": 0}, "id": "a"});
    let mut batch = vec![with_id.clone()];
    batch.extend((1..1200).map(log_line));
    world.append(&alice, batch).await.expect("stored");
    let future = Timestamp::from_millis(Timestamp::now().millis() + 1000).expect("a time");
    let past = Timestamp::from_millis(0).expect("a time");

    let keep = RetentionLimits { events: past, high_volume: past };
    assert!(!world.store.prune(keep).await.expect("pruned"));
    let everything =
        || EventQuery { patterns: vec![Pattern::parse("log.*").expect("a pattern")], limit: 5000, ..all() };
    assert_eq!(world.page(&alice, everything()).await.events.len(), 1199);

    let lines = RetentionLimits { events: past, high_volume: future };
    assert!(world.store.prune(lines).await.expect("pruned"), "more than one transaction removes");
    assert!(!world.store.prune(lines).await.expect("pruned"));
    assert!(world.page(&alice, everything()).await.events.is_empty());
    assert_eq!(payloads(&world.page(&alice, all()).await), [json!({"n": 0})]);
    assert_eq!(world.append(&alice, vec![with_id.clone()]).await.expect("a duplicate").duplicates, 1);

    let rest = RetentionLimits { events: future, high_volume: future };
    assert!(!world.store.prune(rest).await.expect("pruned"));
    assert!(world.page(&alice, all()).await.events.is_empty());
    assert_eq!(world.append(&alice, vec![with_id]).await.expect("stored").accepted, 1, "the id is forgotten");
}
