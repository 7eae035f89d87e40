//! Compares the index with a scan of all tasks. After any writes both give the same results, and the index reads little.

use std::{cmp::Reverse, path::Path};

use proptest::prelude::*;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use serde_json::{Value, json};

use super::{
    database::{LAST_SEQUENCE, META, TASKS},
    facts::Facts,
    index::{COUNTS, LISTS, LOOKUPS},
    lists::{Lists, cursor_after, sort_key_after},
    migrate,
    ranges::Range,
    transaction::Tables,
    *,
};
use crate::{
    github::{DeliveryId, Received, Search},
    store::{TaskWrite, query::created_at},
    task::{Answers, Counts, NewTask, OrgId, Task, TaskPatch, Timestamp, UserId},
};

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const ORGS: [&str; 3] = ["acme", "globex", ""];
const STATUSES: [&str; 6] = ["received", "coding", "needs_clarification", "merged", "failed", ""];

fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

fn viewers() -> impl Iterator<Item = Viewer> {
    USERS.into_iter().flat_map(|user| ORGS.map(|org| viewer(user, org)))
}

fn filters() -> impl Iterator<Item = TaskFilter> {
    let statuses = [None].into_iter().chain(STATUSES.map(Some));
    statuses.flat_map(|status| {
        [None, Some("alice"), Some("bob")].map(|creator| TaskFilter {
            status: status.map(str::to_owned),
            creator: creator.and_then(UserId::parse),
        })
    })
}

fn open(folder: &Path, default_org: &DefaultOrg) -> EmbeddedStore {
    let config = EmbeddedConfig { data_dir: folder.to_owned(), default_org: default_org.clone() };
    EmbeddedStore::open(config).expect("opened")
}

/// The tasks that a scan finds, newest first.
struct Scan(Vec<Task>);

impl Scan {
    fn of(store: &EmbeddedStore) -> Self {
        let default_org = store.default_org.clone();
        let work = |db: &redb::Database| {
            let mut tasks = Vec::new();
            for item in db.begin_read()?.open_table(TASKS)?.range::<&str>(..)? {
                let (key, document) = item?;
                let task = record::decode(document.value())
                    .and_then(|document| record::task(document, &default_org));
                tasks.extend(task.ok().filter(|task| task.id.as_str() == key.value()));
            }
            Ok(tasks)
        };
        let mut tasks = store.database.run(work).expect("read");
        tasks.sort_by_key(|task| Reverse((created_at(task), task.id.clone())));
        Self(tasks)
    }

    fn listed(&self, viewer: &Viewer, filter: &TaskFilter) -> Vec<Task> {
        let is_visible = |task: &&Task| task.access.allows(viewer) && filter.matches(task);
        self.0.iter().filter(is_visible).cloned().collect()
    }

    fn counts(&self, viewer: &Viewer) -> (Counts, Counts) {
        let (mut org, mut own) = (Counts::default(), Counts::default());
        for task in self.0.iter().filter(|task| task.access.allows(viewer)) {
            let is_of_org = viewer.org.is_some() && task.access.public_org() == viewer.org.as_ref();
            if is_of_org { &mut org } else { &mut own }.add(task.status().class(), 1);
        }
        (org, own)
    }
}

/// Every row of the index.
fn rows(txn: &WriteTransaction) -> Vec<String> {
    let mut rows = Vec::new();
    rows.extend(
        txn.open_table(LISTS)
            .expect("there")
            .iter()
            .expect("read")
            .map(|row| format!("{:?}", row.expect("read").0.value())),
    );
    rows.extend(
        txn.open_table(LOOKUPS)
            .expect("there")
            .iter()
            .expect("read")
            .map(|row| format!("{:?}", row.expect("read").0.value())),
    );
    rows.extend(txn.open_table(COUNTS).expect("there").iter().expect("read").map(|row| {
        let (key, counts) = row.expect("read");
        format!("{:?} {:?}", key.value(), counts.value())
    }));
    rows
}

/// The rows of the current index, and the rows of an index that is built again from the documents.
fn kept_and_made_anew(store: &EmbeddedStore) -> (Vec<String>, Vec<String>) {
    let work = |db: &redb::Database| {
        let txn = db.begin_write()?;
        let kept = rows(&txn);
        migrate::index_chunk(&txn, usize::MAX, &mut migrate::Progress::default())?;
        let anew = rows(&txn);
        txn.abort()?;
        Ok((kept, anew))
    };
    store.database.run(work).expect("indexed")
}

/// A write to the store, or what happens to its file.
#[derive(Clone, Debug)]
enum Step {
    Create {
        by: Viewer,
        body: Value,
    },
    Patch {
        which: usize,
        by: Viewer,
        body: Value,
    },
    Clarify {
        which: usize,
    },
    Deliver {
        event: &'static str,
        payload: Value,
    },
    /// An earlier release writes this, and then this release starts with this `DEFAULT_ORG`.
    Reopen {
        earlier: Option<(String, String)>,
        default_org: &'static str,
    },
}

fn any_viewer() -> impl Strategy<Value = Viewer> {
    let parts = (prop::sample::select(USERS.to_vec()), prop::sample::select(ORGS.to_vec()));
    parts.prop_map(|(user, org)| viewer(user, org))
}

fn patches() -> impl Strategy<Value = Value> {
    let choose = |bodies: Vec<Value>| prop::sample::select(bodies);
    choose(vec![
        json!({"title": "t"}),
        json!({"isPrivate": true}),
        json!({"isPrivate": false}),
        json!({"orgId": "acme"}),
        json!({"orgId": "globex", "isPrivate": false}),
        json!({"createdBy": "bob"}),
        json!({"createdBy": "carol", "status": "failed"}),
        json!({"status": "coding"}),
        json!({"status": "needs_clarification"}),
        json!({"status": "merged"}),
        json!({"status": "failed", "event": {"eventType": "x"}}),
        json!({"repo": "Acme/Web", "issueNumber": 1}),
        json!({"repo": "acme/web", "prNumber": 2, "githubBranch": "main"}),
        json!({"repo": "acme/old", "prNumber": 1, "issueNumber": 2}),
        json!({"repo": null, "prUrl": "https://github.com/acme/web/pull/1"}),
        json!({"repo": null, "issueUrl": "https://github.com/acme/old/issues/1"}),
        json!({"githubBranch": "main", "issueNumber": null}),
    ])
}

/// A document as a person may have written it, under the key `odd` or `other`.
fn documents() -> impl Strategy<Value = (String, String)> {
    let fields = prop::collection::vec(
        prop::sample::select(vec![
            r#""_id":"odd""#,
            r#""_id":"odd""#,
            r#""_id":"other""#,
            r#""_id":7"#,
            r#""createdBy":"alice""#,
            r#""createdBy":"""#,
            r#""createdBy":5"#,
            r#""orgId":"acme""#,
            r#""orgId":"""#,
            r#""orgId":7"#,
            r#""orgId":{"a":1}"#,
            r#""isPrivate":"no""#,
            r#""isPrivate":true"#,
            r#""status":"paused""#,
            r#""status":["coding"]"#,
            r#""status":"merged""#,
            r#""createdAt":"2026-01-02T03:04:05+02:00""#,
            r#""createdAt":"2026-01-02 03:04""#,
            r#""createdAt":"2026-02-30""#,
            r#""createdAt":1767323045000"#,
            r#""createdAt":1767323045"#,
            r#""createdAt":"2026-99-99T99:99:59.999Z""#,
            r#""createdAt":false"#,
            r#""repo":"acme/web","prNumber":1"#,
            r#""repo":"acme/old","githubBranch":"main","prState":"open""#,
            r#""repo":7,"issueUrl":"https://github.com/acme/web/issues/1""#,
        ]),
        1..8,
    );
    let key = prop::sample::select(vec!["odd", "other"]);
    (key, fields, prop::bool::weighted(0.1)).prop_map(|(key, fields, is_cut)| {
        let end = if is_cut { "" } else { "}" };
        (key.to_owned(), format!("{{{}{end}", fields.join(",")))
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let create = (any_viewer(), any::<bool>(), any::<bool>()).prop_map(|(by, is_private, has_repo)| {
        let repo = if has_repo { json!("acme/web") } else { Value::Null };
        Step::Create { by, body: json!({"title": "t", "isPrivate": is_private, "repo": repo}) }
    });
    let patch = (any::<usize>(), any_viewer(), patches());
    let deliver = (
        any::<prop::sample::Index>(),
        prop::sample::select(vec![1, 2]),
        prop::sample::select(NAMES.to_vec()),
    )
        .prop_map(|(which, id, name)| {
            let payloads = payloads(&repository(id, name), &[]);
            let (event, payload) = which.get(&payloads).clone();
            Step::Deliver { event, payload }
        });
    let reopen = (proptest::option::of(documents()), prop::sample::select(ORGS.to_vec()));
    prop_oneof![
        4 => create,
        8 => patch.prop_map(|(which, by, body)| Step::Patch { which, by, body }),
        1 => any::<usize>().prop_map(|which| Step::Clarify { which }),
        4 => deliver,
        2 => reopen.prop_map(|(earlier, default_org)| Step::Reopen { earlier, default_org }),
    ]
}

/// Names that one repository has at different times, or that two repositories have.
const NAMES: [&str; 3] = ["acme/web", "Acme/Web", "acme/old"];

fn repository(id: u64, name: &str) -> Value {
    json!({"id": id, "full_name": name, "html_url": format!("https://github.com/{name}"), "private": true})
}

/// Deliveries from a repository that search for tasks in every way, and deliveries that report its earlier names.
fn payloads(repository: &Value, named: &[TaskId]) -> Vec<(&'static str, Value)> {
    let link = |end: &str| format!("{}/{end}", repository["html_url"].as_str().unwrap_or_default());
    let pull_request = |number: u64, branch: &str, action: &str| {
        let payload = json!({
            "action": action, "repository": repository, "pull_request": {
                "number": number, "html_url": link(&format!("pull/{number}")), "title": "t", "body": "Fixes #1",
                "state": if action == "closed" { "closed" } else { "open" }, "draft": false, "merged": action == "closed",
                "updated_at": "2026-01-02T03:04:05Z", "head": {"ref": branch, "repo": repository},
            },
        });
        ("pull_request", payload)
    };
    let named: Vec<&str> = named.iter().map(TaskId::as_str).collect();
    let issue = json!({
        "action": "opened", "repository": repository,
        "issue": {"number": 1, "html_url": link("issues/1"), "title": "t", "body": named.join(" ")},
    });
    let check = json!({
        "action": "completed", "repository": repository,
        "workflow_run": {"name": "ci", "conclusion": "success", "head_sha": "abc1", "head_branch": "main", "pull_requests": []},
    });
    let renamed = |from: &str| {
        let changes = json!({"repository": {"name": {"from": from}}});
        ("repository", json!({"action": "renamed", "repository": repository, "changes": changes}))
    };
    vec![
        pull_request(1, "main", "opened"),
        pull_request(1, "other", "closed"),
        pull_request(2, "main", "closed"),
        ("issues", issue),
        ("workflow_run", check),
        renamed("web"),
        renamed("old"),
    ]
}

fn delivery(id: &str, event: &str, payload: &Value) -> Delivery {
    let id = DeliveryId::parse(id).expect("an id");
    match Received::parse(id, event, payload.to_string().as_bytes()).expect("usable").0 {
        Received::Delivery(delivery) => *delivery,
        other => panic!("a delivery was expected, not {other:?}"),
    }
}

/// Writes a document as an earlier release does, which does not know the index.
fn write_as_earlier(store: &EmbeddedStore, key: &str, document: &str) {
    let work = |db: &redb::Database| {
        let txn = db.begin_write()?;
        txn.open_table(TASKS)?.insert(key, document.as_bytes())?;
        {
            let mut meta = txn.open_table(META)?;
            let last = meta.get(LAST_SEQUENCE)?.map_or(0, |number| number.value());
            meta.insert(LAST_SEQUENCE, last + 1)?;
        }
        txn.commit()?;
        Ok(())
    };
    store.database.run(work).expect("written");
}

async fn check(store: &EmbeddedStore) {
    let scan = Scan::of(store);
    let (kept, anew) = kept_and_made_anew(store);
    assert_eq!(kept, anew);
    for viewer in viewers() {
        let dashboard = store.dashboard(&viewer, 3).await.expect("read");
        let listed = scan.listed(&viewer, &TaskFilter::default());
        assert_eq!(dashboard.tasks, listed[..listed.len().min(3)], "{viewer:?}");
        assert_eq!((dashboard.org_counts, dashboard.own_counts), scan.counts(&viewer), "{viewer:?}");
        for filter in filters() {
            let expected = scan.listed(&viewer, &filter);
            let (mut pages, mut cursor) = (Vec::new(), None);
            loop {
                let page = store.list(&viewer, &filter, cursor.as_ref(), 4).await.expect("read");
                pages.extend(page.tasks);
                // A client sends the cursor back as text.
                cursor = page.next.map(|next| Cursor::decode(&next.encode()).expect("a cursor"));
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(pages, expected, "{viewer:?} {filter:?}");
        }
    }
    check_searches(store, &scan);
}

/// Compares the task that a delivery finds with the task that it would find in a scan of all tasks.
fn check_searches(store: &EmbeddedStore, scan: &Scan) {
    let all: Vec<&Task> = scan.0.iter().collect();
    let ids: Vec<TaskId> = scan.0.iter().map(|task| task.id.clone()).collect();
    let repositories = NAMES.iter().flat_map(|name| [1, 2].map(|id| repository(id, name)));
    for (event, payload) in repositories.flat_map(|repository| payloads(&repository, &ids)) {
        let delivery = delivery("d", event, &payload);
        let work = |db: &redb::Database| {
            let txn = db.begin_write()?;
            let criteria = Facts::open(&txn)?
                .store_facts_and_extend_search(&delivery, Timestamp::now())?
                .search
                .criteria;
            let tables = Tables::open(&txn, &store.default_org)?;
            // The later criteria are tested as well, even if an earlier one matches a task.
            let searches = (0..criteria.len()).map(|first| Search { criteria: criteria[first..].to_vec() });
            let found = searches.map(|search| {
                let meant = tables.find_task(&search)?.map(|(_, task)| task);
                Ok::<_, Fault>((search, meant))
            });
            let found = found.collect::<Result<Vec<_>, _>>()?;
            drop(tables);
            txn.abort()?;
            Ok(found)
        };
        for (search, meant) in store.database.run(work).expect("read") {
            assert_eq!(meant.as_ref(), search.choose(&all), "{search:?}");
        }
    }
}

async fn take(store: &EmbeddedStore, ids: &mut Vec<TaskId>, n: usize, step: Step) {
    let some = |which: usize| (!ids.is_empty()).then(|| ids[which % ids.len()].clone());
    match step {
        Step::Create { by, body } => {
            let task = NewTask::parse(body).expect("a task");
            ids.push(store.create(task, &by, None).await.expect("created").task.id);
        }
        Step::Patch { which, by, body } => {
            let Some(id) = some(which) else { return };
            let _ = store.patch(&id, &by, TaskPatch::parse(body).expect("a patch")).await;
        }
        Step::Clarify { which } => {
            let Some(id) = some(which) else { return };
            let answers = Answers::parse(json!({"answers": ["a"]})).expect("answers");
            let _ = store.clarify(&id, &viewer("alice", "acme"), answers).await;
        }
        Step::Deliver { event, payload } => {
            store.deliver(delivery(&format!("d{n}"), event, &payload)).await.expect("delivered");
        }
        Step::Reopen { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_index_gives_what_a_scan_gives(steps in prop::collection::vec(steps(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        runtime.block_on(async {
            let mut store = open(folder.path(), &DefaultOrg(None));
            let mut ids = vec![TaskId::parse("odd").expect("an id")];
            for (n, step) in steps.into_iter().enumerate() {
                let Step::Reopen { earlier, default_org } = step else {
                    take(&store, &mut ids, n, step).await;
                    continue;
                };
                check(&store).await;
                if let Some((key, document)) = earlier {
                    write_as_earlier(&store, &key, &document);
                }
                drop(store);
                store = open(folder.path(), &DefaultOrg(OrgId::parse(default_org)));
                check(&store).await;
            }
            check(&store).await;
        });
    }
}

/// A store with many tasks of several users and organisations, made at once.
fn filled(folder: &Path, count: usize) -> EmbeddedStore {
    let store = open(folder, &DefaultOrg(OrgId::parse("acme")));
    let writes = (0..count).map(|n| {
        let body = json!({"title": n.to_string(), "isPrivate": n % 7 == 0, "repo": "acme/web"});
        let creator = viewer(USERS[n % 3], ORGS[n / 3 % 3]);
        let task = NewTask::parse(body).expect("a task");
        request(creator, TaskWrite::Create { task, creator_name: None })
    });
    let writes = writes.collect();
    let created = apply(&store, writes);
    let edits = created.iter().enumerate().map(|(n, id)| {
        let status = ["coding", "merged", "failed"][n % 3];
        let body = json!({"status": status, "githubBranch": "main", "issueNumber": 1 + n % 2});
        let patch = TaskPatch::parse(body).expect("a patch");
        request(viewer("pipeline", ""), TaskWrite::Patch { id: id.clone(), patch })
    });
    apply(&store, edits.skip(count / 4).collect());
    store
}

fn request(by: Viewer, write: TaskWrite) -> Write {
    Write::Request(Box::new(WriteRequest::new(by, write)))
}

fn apply(store: &EmbeddedStore, writes: Vec<Write>) -> Vec<TaskId> {
    let work = |db: &redb::Database| {
        let txn = db.begin_write()?;
        let (outcomes, ..) = Tables::open(&txn, &store.default_org)?.apply(writes)?;
        txn.commit()?;
        Ok(outcomes)
    };
    let outcomes = store.database.run(work).expect("written");
    let written = outcomes.into_iter().map(|outcome| match outcome {
        Ok(Written::Request(outcome)) => outcome.into_written().expect("written").task.task.id,
        other => panic!("a task was expected, not {other:?}"),
    });
    written.collect()
}

#[test]
fn a_list_reads_only_the_documents_that_it_returns() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path(), 3000);
    let scan = Scan::of(&store);
    let mut most = 0;
    for viewer in viewers() {
        for filter in filters() {
            let expected = scan.listed(&viewer, &filter);
            let cursors = [None, expected.get(expected.len() / 2).map(cursor_after)];
            for (cursor, limit) in cursors.iter().flat_map(|cursor| [1, 50, 200].map(|limit| (cursor, limit)))
            {
                let work = |db: &redb::Database| {
                    let lists = Lists::open(&db.begin_read()?, &store.default_org)?;
                    let after = cursor.as_ref().and_then(sort_key_after);
                    let tasks = lists.newest(&viewer, &filter, after, limit)?;
                    Ok((tasks.len(), lists.read_counts()))
                };
                let (returned, read_counts) = store.database.run(work).expect("read");
                let case = format!("{viewer:?} {filter:?} {cursor:?} {limit}: {returned} of {read_counts:?}");
                let skipped = cursor.as_ref().map_or(0, |_| expected.len() / 2 + 1).min(expected.len());
                assert_eq!(returned, (expected.len() - skipped).min(limit), "{case}");
                assert_eq!(read_counts.documents, returned, "{case}");
                assert!(read_counts.entries <= 2 * returned + 100, "{case}");
                most = most.max(returned);
            }
        }
    }
    assert_eq!(most, 200, "no list was long enough to show anything");
}

#[test]
fn counts_are_read_from_the_index_without_any_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path(), 3000);
    let work = |db: &redb::Database| {
        let lists = Lists::open(&db.begin_read()?, &store.default_org)?;
        let mut counted = Counts::default();
        for org in lists.orgs(&viewer("alice", "acme")) {
            counted = counted.plus(lists.counts(Range::Public { org, creator: None, status: None })?);
        }
        Ok((counted, lists.read_counts()))
    };
    let (counted, read_counts) = store.database.run(work).expect("read");
    assert_eq!(counted, Scan::of(&store).counts(&viewer("alice", "acme")).0);
    assert!(counted.active > 500 && counted.completed > 100 && counted.failed > 100, "{counted:?}");
    assert_eq!((read_counts.entries, read_counts.documents), (2, 0));
}

#[test]
fn a_delivery_reads_only_the_task_that_it_is_about() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path(), 3000);
    let mut found = 0;
    let scan = Scan::of(&store);
    let all: Vec<&Task> = scan.0.iter().collect();
    for (event, payload) in payloads(&repository(1, "Acme/WEB"), &[]) {
        let Search { criteria } = delivery("d", event, &payload).search;
        for search in criteria.into_iter().map(|criterion| Search { criteria: vec![criterion] }) {
            let work = |db: &redb::Database| {
                let txn = db.begin_write()?;
                let tables = Tables::open(&txn, &store.default_org)?;
                let meant = tables.find_task(&search)?.map(|(_, task)| task);
                let read = tables.documents_read.get();
                drop(tables);
                txn.abort()?;
                Ok((meant, read))
            };
            let (meant, read) = store.database.run(work).expect("read");
            assert_eq!(meant.as_ref(), search.choose(&all), "{search:?}");
            assert_eq!(read, usize::from(meant.is_some()), "{search:?}");
            found += read;
        }
    }
    // Two pull requests and a check find a task by its branch. Three pull requests and the issue's own delivery find one by
    // its issue.
    assert_eq!(found, 7);
}

/// Each transaction indexes some of the tasks. The process may end after any of them.
#[tokio::test]
async fn an_interrupted_indexing_is_continued() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path(), 60);
    for with_earlier_release in [false, true] {
        forget_index(&store);
        let mut progress = migrate::Progress::default();
        for _ in 0..3 {
            assert!(!index_chunk(&store, 15, &mut progress));
        }
        if with_earlier_release {
            let document = r#"{"_id":"aaa","title":"t","createdBy":"alice","orgId":"acme"}"#;
            write_as_earlier(&store, "aaa", document);
        }
        let mut rest = migrate::Progress::default();
        assert!(index_chunk(&store, 1000, &mut rest));
        // The earlier release may have written any task, so all tasks are indexed again.
        assert_eq!(rest.done, if with_earlier_release { 61 } else { 15 });
        check(&store).await;
    }
}

fn index_chunk(store: &EmbeddedStore, limit: usize, progress: &mut migrate::Progress) -> bool {
    let work = |db: &redb::Database| {
        let txn = db.begin_write()?;
        let is_done = migrate::index_chunk(&txn, limit, progress)?;
        txn.commit()?;
        Ok(is_done)
    };
    store.database.run(work).expect("indexed")
}

/// Turns the file into one of an earlier release.
fn forget_index(store: &EmbeddedStore) {
    let work = |db: &redb::Database| {
        let txn = db.begin_write()?;
        txn.delete_table(LISTS)?;
        txn.delete_table(COUNTS)?;
        txn.delete_table(LOOKUPS)?;
        {
            let mut meta = txn.open_table(META)?;
            meta.remove(migrate::FORMAT_KEY)?;
            meta.remove(migrate::INDEXED_SEQUENCE)?;
        }
        txn.commit()?;
        Ok(())
    };
    store.database.run(work).expect("written");
}
