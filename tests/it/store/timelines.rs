//! Tests reading parts of timelines.

use serde_json::json;
use taskcast::{
    store::TaskSnapshot,
    task::{TimelineEntry, Window},
};

use super::*;

const ENTRIES: usize = 9;

/// Creates a task with [`ENTRIES`] entries. Each entry has its number and a secret.
pub async fn long(store: &dyn Store, creator: &Viewer) -> FullTask {
    let id = create(store, creator, "long").await.task.id;
    for n in 0..ENTRIES {
        let event = json!({"eventType": "step", "payload": {"n": n, "apiKey": "very secret"}});
        store.patch(&id, creator, patch(json!({"event": event}))).await.expect("patched");
    }
    store.task(&id).await.expect("read").task.expect("there")
}

pub async fn every_part_of_a_timeline_is_read(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let (whole, empty) = (long(&*store, &alice).await, create(&*store, &alice, "without entries").await);
    assert_eq!((whole.timeline.len(), whole.older, whole.newer), (ENTRIES, 0, 0));
    let indexes = [0, 1, 4, ENTRIES - 1, ENTRIES, ENTRIES + 1, usize::MAX];
    for before in indexes {
        for limit in indexes {
            let window = Window { before, limit };
            let part = store.task_part(&whole.task.id, window).await.expect("read").task.expect("there");
            let end = before.min(ENTRIES);
            let start = end.saturating_sub(limit);
            let expected: &[TimelineEntry] = &whole.timeline[start..end];
            assert_eq!(part.timeline, expected, "{window:?}");
            assert_eq!((part.older, part.newer), (start, ENTRIES - end), "{window:?}");
            assert_eq!(part.task, whole.task, "the rest is the same");
            let none = store.task_part(&empty.task.id, window).await.expect("read").task;
            assert_eq!(none.as_ref(), Some(&empty), "{window:?}");
            let absent = store.task_part(&task_id("absent"), window).await.expect("read").task;
            assert_eq!(absent, None);
        }
    }
    let newest = store.task_part(&whole.task.id, Window::newest(2)).await.expect("read").task.expect("there");
    let view = full(&newest);
    assert_eq!(view["eventsOmitted"], json!(ENTRIES - 2));
    let payloads: Vec<_> =
        view["events"].as_array().expect("an array").iter().map(|e| &e["payload"]).collect();
    assert_eq!(
        payloads,
        [&json!({"n": 7, "apiKey": "[redacted]"}), &json!({"n": 8, "apiKey": "[redacted]"})]
    );
    assert!(full(&whole).get("eventsOmitted").is_none(), "nothing is left out");
}

/// A state with only the newest entries and the changes after it form the end of the timeline without a gap.
pub async fn a_part_and_its_later_changes_have_no_gap(backend: &impl Backend) {
    const MOST: usize = 5;
    const WRITES: usize = 60;
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    let mut feed = Following::start(&store).await;
    let writer = tokio::spawn({
        let (store, id, alice) = (store.clone(), id.clone(), alice.clone());
        async move {
            for n in 0..WRITES {
                let event = json!({"eventType": n.to_string()});
                store.patch(&id, &alice, patch(json!({"event": event}))).await.expect("patched");
            }
        }
    });
    let mut parts: Vec<TaskSnapshot> = Vec::new();
    while !writer.is_finished() {
        parts.push(store.task_part(&id, Window::newest(MOST)).await.expect("read"));
    }
    writer.await.expect("written");
    let whole = store.task(&id).await.expect("read").task.expect("there");
    let changes = feed.changes(WRITES + 1).await;
    for TaskSnapshot { task, position } in parts {
        let FullTask { mut timeline, older, newer, .. } = task.expect("there");
        assert!(newer == 0 && (older == 0 || timeline.len() == MOST));
        for change in changes.iter().filter(|change| change.position > position) {
            let taskcast::feed::TimelineChange::Added(added) = &change.timeline else { panic!("{change:?}") };
            timeline.extend(added.clone());
        }
        assert_eq!(timeline, whole.timeline[older..], "after {position}");
    }
}
