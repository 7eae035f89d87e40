//! A request for a task that the user may not see reads as much as a request for an absent task.

use mongodb::bson::{Document, doc};
use serde_json::json;
use taskcast::{
    store::{Store, WriteError},
    task::{Answers, TaskId, TaskPatch, UserId, Viewer},
};

use crate::mongod::{TestDatabase, response_bytes};

/// A size that no read reaches by chance.
const LARGE: usize = 200_000;

#[tokio::test]
async fn a_forbidden_task_is_read_as_little_as_an_absent_one() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let large = "x".repeat(LARGE);
    let events: Vec<Document> =
        (0..10).map(|_| doc! {"eventType": "log", "payload": {"text": &large}}).collect();
    let task = doc! {
        "_id": "forbidden", "createdBy": "alice", "orgId": "acme", "isPrivate": true, "title": &large,
        "description": &large, "status": "needs_clarification", "events": events,
    };
    db.tasks().insert_one(task).await.expect("inserted");
    let stranger =
        Viewer { user: UserId::parse("bob").expect("a user"), org: taskcast::task::OrgId::parse("globex") };

    let mut read = Vec::new();
    for name in ["forbidden", "absent"] {
        let id = TaskId::parse(name).expect("an id");
        let profile_entries = db.profile(async {
            let seen = store.access(&id).await.expect("read").access;
            assert!(seen.is_none_or(|access| !access.allows(&stranger)), "{name}");
            let answers = Answers::parse(json!({"answers": ["a"]})).expect("answers");
            let refused = store.clarify(&id, &stranger, answers).await;
            assert!(matches!(refused, Err(WriteError::NotFound)), "{name}: {refused:?}");
            let patch = TaskPatch::parse(json!({"status": "received"})).expect("a patch");
            let refused = store.patch(&id, &stranger, patch).await;
            assert!(matches!(refused, Err(WriteError::NotFound)), "{name}: {refused:?}");
        });
        let profile_entries = profile_entries.await;
        let length: i64 = profile_entries.iter().map(response_bytes).sum();
        let plans: Vec<String> = profile_entries
            .iter()
            .map(|profile_entry| profile_entry.get_str("planSummary").unwrap_or_default().to_owned())
            .collect();
        read.push((profile_entries.len(), plans, length));
    }
    let [(commands, plans, length), (absent_commands, absent_plans, absent_length)] = &read[..] else {
        unreachable!("two were asked for")
    };
    assert_eq!((commands, plans), (absent_commands, absent_plans), "the same commands, by the same plans");
    let difference = length - absent_length;
    assert!((0..1_000).contains(&difference), "{difference} bytes of a task of {LARGE} and more travelled");
}
