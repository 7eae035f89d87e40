//! Idempotency keys, the positions of writes, and writes on the condition that a task has not changed.

use serde_json::json;
use taskcast::{
    feed::{Change, last_room_event},
    store::{TaskWrite, WriteError, WriteOutcome, WriteRequest, WrittenTask},
    task::{Answers, Window},
};

use super::*;

pub fn creation(by: &Viewer, title: &str) -> WriteRequest {
    let task = parsed(json!({"title": title}));
    WriteRequest::new(by.clone(), TaskWrite::Create { task, creator_name: None })
}

pub fn patching(by: &Viewer, id: &TaskId, body: Value) -> WriteRequest {
    WriteRequest::new(by.clone(), TaskWrite::Patch { id: id.clone(), patch: patch(body) })
}

fn clarifying(by: &Viewer, id: &TaskId, answer: &str) -> WriteRequest {
    let answers = Answers::parse(json!({"answers": [answer]})).expect("answers");
    WriteRequest::new(by.clone(), TaskWrite::Clarify { id: id.clone(), answers })
}

pub async fn written(store: &dyn Store, request: WriteRequest) -> WrittenTask {
    store.write(request).await.expect("written").into_written().expect("the first request with this key")
}

/// The task and the position that a repeated request gets.
pub async fn repeated(store: &dyn Store, request: WriteRequest) -> (TaskId, Option<Position>) {
    match store.write(request).await.expect("answered") {
        WriteOutcome::Repeated(earlier) => (earlier.task, earlier.event_id),
        WriteOutcome::Written(written) => panic!("it was written again: {written:?}"),
    }
}

async fn entries(store: &dyn Store, id: &TaskId) -> usize {
    store.task(id).await.expect("read").task.expect("there").timeline.len()
}

pub async fn a_repeated_request_writes_nothing(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let alice = viewer("alice", "acme");
    let created = written(&*store, creation(&alice, "t").with_key("k")).await;
    let id = created.task.task.id.clone();
    assert_eq!(repeated(&*store, creation(&alice, "t").with_key("k")).await, (id.clone(), created.event_id));

    let body = json!({"status": "needs_clarification", "event": {"eventType": "e"}});
    let patched = written(&*store, patching(&alice, &id, body.clone()).with_key("k")).await;
    let again = repeated(&*store, patching(&alice, &id, body).with_key("k")).await;
    assert_eq!(again, (id.clone(), patched.event_id));
    assert!(patched.event_id.is_some());
    let clarified = written(&*store, clarifying(&alice, &id, "a").with_key("k")).await;
    for _ in 0..2 {
        let again = repeated(&*store, clarifying(&alice, &id, "a").with_key("k")).await;
        assert_eq!(again, (id.clone(), clarified.event_id));
    }
    assert_eq!(entries(&*store, &id).await, 2);

    // Another key is another request, and so is a request without a key.
    let other = written(&*store, creation(&alice, "t").with_key("l")).await.task.task.id;
    let third = written(&*store, creation(&alice, "t")).await.task.task.id;
    assert!(other != id && third != id && third != other);
    assert_eq!(feed.changes(5).await.len(), 5);
}

pub async fn a_key_belongs_to_one_user_and_one_content(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "acme"));
    let id = written(&*store, creation(&alice, "t").with_key("k")).await.task.task.id;
    for by in [&bob, &viewer("alice", "globex")] {
        assert_ne!(written(&*store, creation(by, "t").with_key("k")).await.task.task.id, id);
    }
    let refused = store.write(creation(&alice, "another title").with_key("k")).await;
    assert!(matches!(refused, Err(WriteError::KeyReused)), "{refused:?}");

    let other = create(&*store, &alice, "other").await.task.id;
    written(&*store, patching(&bob, &id, json!({"title": "u"})).with_key("k")).await;
    for (id, title) in [(&other, "u"), (&id, "v")] {
        let refused = store.write(patching(&bob, id, json!({"title": title})).with_key("k")).await;
        assert!(matches!(refused, Err(WriteError::KeyReused)), "{refused:?}");
    }
    let read = store.task(&other).await.expect("read").task.expect("there");
    assert_eq!(full(&read)["title"], "other");
}

pub async fn a_refused_write_leaves_no_key(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, eve) = (viewer("alice", "acme"), viewer("eve", "evil"));
    let id = create(&*store, &alice, "t").await.task.id;
    let early = store.write(clarifying(&alice, &id, "a").with_key("k")).await;
    assert!(matches!(early, Err(WriteError::Conflict(_))), "{early:?}");
    let forbidden = store.write(clarifying(&eve, &id, "a").with_key("k")).await;
    assert!(matches!(forbidden, Err(WriteError::NotFound)), "{forbidden:?}");
    let absent = patching(&eve, &task_id("507f1f77bcf86cd799439011"), json!({"title": "u"})).with_key("k");
    assert!(matches!(store.write(absent).await, Err(WriteError::NotFound)));

    written(&*store, patching(&alice, &id, json!({"status": "needs_clarification"}))).await;
    // Another content: the refused request is forgotten.
    written(&*store, clarifying(&alice, &id, "b").with_key("k")).await;
    assert_eq!(entries(&*store, &id).await, 1);
}

pub async fn equal_requests_at_once_have_one_effect(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    let mut at_once = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let body = json!({"event": {"eventType": "e"}});
        let (store, request) = (store.clone(), patching(&alice, &id, body).with_key("k"));
        at_once.spawn(async move { store.write(request).await });
    }
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for outcome in at_once.join_all().await {
        match outcome {
            Ok(WriteOutcome::Written(written)) => first.push(written.event_id),
            Ok(WriteOutcome::Repeated(earlier)) => others.push((earlier.task, earlier.event_id)),
            Err(WriteError::KeyInUse) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(first.len(), 1);
    assert!(others.iter().all(|other| *other == (id.clone(), first[0])), "{others:?} after {first:?}");
    assert_eq!(entries(&*store, &id).await, 1);
}

/// The position of each write is that of the last event that the feed's change causes in the room.
pub async fn a_write_knows_its_position(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let alice = viewer("alice", "acme");
    let created = written(&*store, creation(&alice, "t")).await;
    let id = created.task.task.id.clone();
    let mut event_ids = vec![created.event_id];
    for (n, body) in [
        json!({"title": "u"}),
        json!({"status": "coding", "title": "v", "event": {"eventType": "e"}}),
        json!({"status": "coding"}),
        json!({"description": "no client sees it"}),
        json!({"isPrivate": true, "status": "needs_clarification", "questions": ["?"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let request = patching(&alice, &id, body);
        let request = if n % 2 == 0 { request.with_key(&n.to_string()) } else { request };
        event_ids.push(written(&*store, request).await.event_id);
        // A change of another task, between two changes of this one.
        create(&*store, &alice, "other").await;
    }
    event_ids.push(written(&*store, clarifying(&alice, &id, "a")).await.event_id);
    let known: Vec<bool> = event_ids.iter().map(Option::is_some).collect();
    assert_eq!(known, [false, true, true, false, false, true, true]);

    let changes = feed.changes(12).await;
    let of_task: Vec<&Change> = changes.iter().filter(|change| change.task == id).collect();
    let told: Vec<Option<Position>> = of_task.iter().map(|change| last_room_event(change)).collect();
    assert_eq!(event_ids, told);
    for event_id in told.into_iter().flatten() {
        let snapshot = store.task(&id).await.expect("read").position;
        assert!(snapshot > event_id, "a copy that is read after the write contains the write");
    }
}

pub async fn racing_writes_know_their_positions(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    let mut racing = tokio::task::JoinSet::new();
    for n in 0..30 {
        let body = json!({"title": format!("title {n}"), "event": {"eventType": n.to_string()}});
        let request = patching(&alice, &id, body);
        let request = if n % 3 == 0 { request.with_key(&n.to_string()) } else { request };
        let store = store.clone();
        racing.spawn(async move { (n.to_string(), written(&*store, request).await.event_id) });
    }
    let mut event_ids = racing.join_all().await;
    let changes = feed.changes(31).await;
    let mut told: Vec<(String, Option<Position>)> = changes[1..]
        .iter()
        .map(|change| {
            let title = summary(change.after.as_ref().expect("there"))["title"].clone();
            let n = title.as_str().expect("a title").trim_start_matches("title ").to_owned();
            (n, last_room_event(change))
        })
        .collect();
    event_ids.sort();
    told.sort();
    assert_eq!(event_ids, told);
}

pub async fn a_condition_holds_until_the_task_changes(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let _feed = Following::start(&store).await.discarded();
    let (alice, eve) = (viewer("alice", "acme"), viewer("eve", "evil"));
    let id = create(&*store, &alice, "t").await.task.id;
    // A request names only the text of the id.
    let id = TaskId::parse(id.as_str()).expect("an id");
    let state = store.task_part(&id, Window::ALL).await.expect("read").position;
    let with = |body: Value, since: Position| WriteRequest {
        unchanged_since: Some(since),
        ..patching(&alice, &id, body)
    };
    let is_refused = |result: Result<WriteOutcome, WriteError>| {
        assert!(matches!(result, Err(WriteError::Changed)), "{result:?}");
    };
    // A change of another task, and a change that no client sees.
    create(&*store, &alice, "other").await;
    written(&*store, patching(&alice, &id, json!({"description": "hidden"}))).await;
    let first = written(&*store, with(json!({"title": "u", "status": "coding"}), state)).await;
    let first = first.event_id.expect("an event");
    is_refused(store.write(with(json!({"title": "v"}), state)).await);
    is_refused(store.write(with(json!({"title": "v"}), Position { time: u64::MAX, ..state })).await);
    is_refused(store.write(with(json!({"title": "v"}), Position::ZERO)).await);
    // A user who may not write the task learns nothing of its changes.
    let hidden = WriteRequest { by: eve, ..with(json!({"title": "v"}), state) };
    assert!(matches!(store.write(hidden).await, Err(WriteError::NotFound)));

    let second = written(&*store, with(json!({"title": "v"}), first).with_key("k")).await;
    is_refused(store.write(with(json!({"title": "w"}), first).with_key("l")).await);
    // A repeated request gets the first answer, although the task has changed since.
    let again = repeated(&*store, with(json!({"title": "v"}), first).with_key("k")).await;
    assert_eq!(again, (id.clone(), second.event_id));
    let read = store.task(&id).await.expect("read");
    assert_eq!(full(&read.task.expect("there"))["title"], "v");
    written(&*store, with(json!({"title": "w"}), read.position)).await;
    // The task has left the status in which answers are accepted. The condition decides first, on every store.
    is_refused(
        store.write(WriteRequest { unchanged_since: Some(first), ..clarifying(&alice, &id, "late") }).await,
    );
    let now = store.task(&id).await.expect("read").position;
    let conflict =
        store.write(WriteRequest { unchanged_since: Some(now), ..clarifying(&alice, &id, "late") }).await;
    assert!(matches!(conflict, Err(WriteError::Conflict(_))), "{conflict:?}");
}

/// Two people edit one task: whoever comes second is refused, however close the two are.
pub async fn of_two_writes_with_one_condition_one_is_made(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let _feed = Following::start(&store).await.discarded();
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    for round in 0..10 {
        let since = store.task(&id).await.expect("read").position;
        let mut racing = tokio::task::JoinSet::new();
        for n in 0..4 {
            let request = WriteRequest {
                unchanged_since: Some(since),
                ..patching(&alice, &id, json!({"title": format!("{round} {n}")}))
            };
            let store = store.clone();
            racing.spawn(async move { store.write(request).await });
        }
        let results = racing.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let refused = results.iter().filter(|result| matches!(result, Err(WriteError::Changed)));
        assert_eq!(refused.count(), 3, "{results:?}");
    }
}
