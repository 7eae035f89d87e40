//! Tests that the feed delivers every write once and in order, and that snapshots know their position in this order.

use serde_json::json;
use taskcast::{feed::TimelineChange, task::Field};

use super::{writes::answers, *};

pub async fn every_write_is_one_change(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let alice = viewer("alice", "acme");
    let created = create(&*store, &alice, "t").await;
    let id = created.task.id.clone();
    let body = json!({"status": "needs_clarification", "questions": ["?"], "event": {"eventType": "asked"}});
    let asked = store.patch(&id, &alice, patch(body)).await.expect("patched");
    let answered = store.clarify(&id, &alice, answers(&["!"])).await.expect("clarified");
    let renamed = store.patch(&id, &alice, patch(json!({"title": "u"}))).await.expect("patched");
    let other = create(&*store, &viewer("bob", "other"), "other").await;

    let changes = feed.changes(5).await;
    let told: Vec<_> = changes.iter().map(|c| (c.before.clone(), c.after.clone())).collect();
    let expected = [
        (None, Some(&created)),
        (Some(&created), Some(&asked)),
        (Some(&asked), Some(&answered)),
        (Some(&answered), Some(&renamed)),
        (None, Some(&other)),
    ];
    let task = |full: Option<&FullTask>| full.map(|full| full.task.clone());
    assert_eq!(told, expected.map(|(before, after)| (task(before), task(after))));
    assert_eq!(changes[0].timeline, TimelineChange::Unchanged);
    assert_eq!(changes[1].timeline, TimelineChange::Added(asked.timeline.clone()));
    assert_eq!(changes[2].timeline, TimelineChange::Added(answered.timeline[1..].to_vec()));
    assert_eq!(changes[3].timeline, TimelineChange::Unchanged);
    assert!(changes.iter().take(4).all(|change| change.task == id && change.position.index == 0));
}

pub async fn refused_writes_are_no_change(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let (alice, eve) = (viewer("alice", "acme"), viewer("eve", "evil"));
    let id = create(&*store, &alice, "t").await.task.id;
    store.clarify(&id, &alice, answers(&["!"])).await.expect_err("not asked");
    store.patch(&id, &eve, patch(json!({"title": "x"}))).await.expect_err("not hers");
    create(&*store, &alice, "last").await;
    let changes = feed.changes(2).await;
    assert_eq!(changes[1].after.as_ref().map(|task| task.get(Field::Title)), Some(&json!("last")));
}

/// The writer and the reader race. Every snapshot must contain exactly the changes up to its position.
pub async fn snapshots_know_their_position(backend: &impl Backend) {
    const WRITES: usize = 150;
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "0").await.task.id;
    let writer = tokio::spawn({
        let (store, id, alice) = (store.clone(), id.clone(), alice.clone());
        async move {
            for n in 1..=WRITES {
                let body = json!({"title": n.to_string(), "event": {"eventType": "n"}});
                store.patch(&id, &alice, patch(body)).await.expect("patched");
            }
        }
    });
    let mut snapshots = Vec::new();
    while !writer.is_finished() {
        snapshots.push(store.task(&id).await.expect("read"));
    }
    writer.await.expect("written");
    let changes = feed.changes(WRITES + 1).await;
    for snapshot in &snapshots {
        let task = snapshot.task.as_ref().expect("there");
        let held = changes.iter().filter(|change| change.position <= snapshot.position).count();
        assert_eq!(task.task.get(Field::Title), &json!((held - 1).to_string()), "at {:?}", snapshot.position);
        assert_eq!(task.timeline.len(), held - 1);
    }
    assert!(snapshots.len() > 10, "the reader took part in the race");
}

pub async fn dashboards_know_their_position(backend: &impl Backend) {
    const WRITES: usize = 100;
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let alice = viewer("alice", "acme");
    create(&*store, &alice, "first").await;
    let writer = tokio::spawn({
        let (store, alice) = (store.clone(), alice.clone());
        async move {
            for n in 1..WRITES {
                create(&*store, &alice, &n.to_string()).await;
            }
        }
    });
    let mut snapshots = Vec::new();
    while !writer.is_finished() {
        snapshots.push(store.dashboard(&alice, WRITES).await.expect("read"));
    }
    writer.await.expect("written");
    let changes = feed.changes(WRITES).await;
    for snapshot in &snapshots {
        let held = changes.iter().filter(|change| change.position <= snapshot.position).count();
        assert_eq!((snapshot.tasks.len(), snapshot.org_counts.active), (held, held as u64));
    }
    assert!(snapshots.len() > 5, "the reader took part in the race");
}

pub async fn a_new_follower_receives_earlier_changes(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    for n in 0..20 {
        store.patch(&id, &alice, patch(json!({"title": n.to_string()}))).await.expect("patched");
    }
    let mut first = Following::start(&store).await;
    let told = first.changes(21).await;
    let snapshot = store.task(&id).await.expect("read").position;
    assert!(first.opened < told[0].position && told[20].position <= snapshot);
    let mut second = Following::start(&store).await;
    assert_eq!(second.changes(21).await, told);

    store.patch(&id, &alice, patch(json!({"title": "new"}))).await.expect("patched");
    let new = first.changes(1).await;
    assert!(new[0].position > snapshot);
    assert_eq!(second.changes(1).await, new);
}

pub async fn a_follower_ends_when_stopped(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let stopped = Following::start(&store).await;
    stopped.stop();
    let ended = tokio::time::timeout(DEADLINE, stopped.task).await.expect("in time").expect("no panic");
    ended.expect("stopped in order");
    let left = Following::start(&store).await;
    let Following { items, task, .. } = left;
    drop(items);
    // A store may notice the dropped receiver only when it has the next item to send.
    create(&*store, &viewer("alice", "acme"), "t").await;
    let ended = tokio::time::timeout(DEADLINE, task).await.expect("in time").expect("no panic");
    ended.expect("ended in order");
}
