//! Tests which tasks a store shows to which user, and in which order.

use std::collections::BTreeSet;

use serde_json::json;
use taskcast::{
    store::TaskFilter,
    task::{Counts, Window},
};

use super::*;

pub async fn absent_tasks_are_not_found(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    for id in ["507f1f77bcf86cd799439011", "not an ObjectId", "🦀", &"x".repeat(5000)] {
        assert_eq!(store.task(&task_id(id)).await.expect("read").task, None);
        assert_eq!(store.access(&task_id(id)).await.expect("read").access, None);
    }
    let anybody = viewer("alice", "acme");
    let dashboard = store.dashboard(&anybody, 10).await.expect("read");
    assert_eq!((dashboard.tasks.as_slice(), dashboard.org_counts), (&[][..], Counts::default()));
    let page = store.list(&anybody, &TaskFilter::default(), None, 10).await.expect("read");
    assert_eq!((page.tasks, page.next), (vec![], None));
    store.ping().await.expect("answers");
    assert_eq!(store.kind(), backend.kind());
}

pub async fn the_access_of_a_task_is_read_separately(backend: &impl Backend) {
    for default_org in [no_org(), DefaultOrg(OrgId::parse("acme"))] {
        let Prepared { store, keep: _keep } = backend.fresh(default_org).await;
        let (alice, loner) = (viewer("alice", "acme"), viewer("loner", ""));
        for task in [
            create(&*store, &alice, "public").await,
            create_private(&*store, &alice, "private").await,
            create(&*store, &loner, "of no organisation, unless there is a default one").await,
        ] {
            let position = async || store.task(&task.task.id).await.expect("read").position;
            let before = position().await;
            let seen = store.access(&task.task.id).await.expect("read");
            assert_eq!(seen.access, Some(task.task.access));
            // Other tests write to the same server at the same time.
            assert!((before..=position().await).contains(&seen.position), "{seen:?}");
        }
    }
}

pub async fn batch_reads_equal_single_reads(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, loner) = (viewer("alice", "acme"), viewer("loner", ""));
    let mut ids = vec![task_id("absent")];
    for n in 0..3 {
        ids.push(create(&*store, &alice, &format!("{n}, public")).await.task.id);
        ids.push(create_private(&*store, &alice, &format!("{n}, private")).await.task.id);
        ids.push(create(&*store, &loner, &format!("{n}, loner's")).await.task.id);
    }
    let accesses = store.accesses(&ids).await.expect("read");
    let tasks = store.task_parts(&ids, Window::newest(1)).await.expect("read");
    assert_eq!((accesses.len(), tasks.len()), (ids.len(), ids.len()));
    for id in &ids {
        let (access, task) = (&accesses[id], &tasks[id]);
        assert_eq!(access.access, store.access(id).await.expect("read").access, "{id}");
        assert_eq!(task.task, store.task_part(id, Window::newest(1)).await.expect("read").task, "{id}");
        assert_eq!(access.position, accesses[&ids[0]].position, "all are read at one moment");
        assert_eq!(task.position, tasks[&ids[0]].position, "all are read at one moment");
    }

    let users = ["bob", "alice", "carol", "loner", "nobody"].map(|user| viewer(user, "").user);
    for org in [OrgId::parse("acme"), OrgId::parse("other"), None] {
        let dashboards = store.dashboards(org.as_ref(), &users, 3).await.expect("read");
        assert_eq!(dashboards.len(), users.len());
        for user in &users {
            let viewer = Viewer { user: user.clone(), org: org.clone() };
            let alone = store.dashboard(&viewer, 3).await.expect("read");
            let together = &dashboards[user];
            assert_eq!(titles(&together.tasks), titles(&alone.tasks), "{viewer:?}");
            assert_eq!(together.org_counts, alone.org_counts, "{viewer:?}");
            assert_eq!(together.own_counts, alone.own_counts, "{viewer:?}");
            assert_eq!(together.position, dashboards[&users[0]].position, "all are read at one moment");
        }
        if org.is_some() {
            let [bob, carol] = [0, 2].map(|user| &dashboards[&users[user]]);
            assert!(Arc::ptr_eq(bob, carol), "users who see the same share a snapshot");
        }
    }
}

pub async fn a_viewer_sees_only_permitted_tasks(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "acme"));
    let (carol, alice_elsewhere) = (viewer("carol", "other"), viewer("alice", "other"));
    let loner = viewer("loner", "");
    create(&*store, &alice, "acme").await;
    create_private(&*store, &alice, "acme, alice's").await;
    create_private(&*store, &bob, "acme, bob's").await;
    create(&*store, &carol, "other").await;
    create(&*store, &loner, "of no org").await;

    let cases: [(&Viewer, &[&str]); 6] = [
        (&alice, &["acme, alice's", "acme"]),
        (&bob, &["acme, bob's", "acme"]),
        (&carol, &["other"]),
        (&alice_elsewhere, &["other", "acme, alice's", "acme"]),
        (&loner, &["of no org"]),
        (&viewer("nobody", ""), &[]),
    ];
    for (viewer, expected) in cases {
        let dashboard = store.dashboard(viewer, 10).await.expect("read");
        assert_eq!(titles(&dashboard.tasks), expected, "{viewer:?}");
        let page = store.list(viewer, &TaskFilter::default(), None, 10).await.expect("read");
        assert_eq!(titles(&page.tasks), expected, "{viewer:?}");
        let counted = dashboard.org_counts.plus(dashboard.own_counts);
        assert_eq!(counted.active as usize, expected.len(), "{viewer:?}");
    }
}

pub async fn tasks_without_an_organisation_belong_to_the_default_one(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(DefaultOrg(OrgId::parse("acme"))).await;
    let loner = viewer("loner", "");
    let task = create(&*store, &loner, "open").await;
    assert_eq!(full(&task)["orgId"], "acme");
    create_private(&*store, &loner, "private").await;
    create(&*store, &viewer("carol", "other"), "other").await;

    let seen = |viewer: Viewer| {
        let store = store.clone();
        async move { titles(&store.dashboard(&viewer, 10).await.expect("read").tasks) }
    };
    assert_eq!(seen(viewer("bob", "acme")).await, ["open"]);
    assert_eq!(seen(viewer("loner", "acme")).await, ["private", "open"]);
    assert_eq!(seen(viewer("carol", "other")).await, ["other"]);
    let written = store.patch(&task.task.id, &viewer("bob", "acme"), patch(json!({"title": "theirs"}))).await;
    assert_eq!(full(&written.expect("patched"))["title"], "theirs");
}

pub async fn pages_neither_skip_nor_repeat(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let mut expected = Vec::new();
    for n in 0..23 {
        create_private(&*store, &viewer("bob", "acme"), "unseen").await;
        expected.insert(0, create(&*store, &alice, &format!("t{n}")).await.task.id);
    }
    let expected_set: BTreeSet<_> = expected.iter().cloned().collect();
    for limit in [1, 5, 22, 23, 24] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            // Newer tasks are created between the pages. Their place is before the first page.
            create(&*store, &alice, "newer").await;
            let page =
                store.list(&alice, &TaskFilter::default(), cursor.as_ref(), limit).await.expect("read");
            assert!(page.tasks.len() <= limit);
            pages += 1;
            seen.extend(page.tasks.iter().map(|task| task.id.clone()));
            let Some(next) = page.next else { break };
            assert_eq!(page.tasks.len(), limit, "only the last page may be short");
            cursor = Some(taskcast::store::Cursor::decode(&next.encode()).expect("round trip"));
        }
        let unique: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "repeated at limit {limit}");
        let old: Vec<_> = seen.into_iter().filter(|id| expected_set.contains(id)).collect();
        assert_eq!(old.len(), 23, "skipped at limit {limit}");
        assert!(pages >= 23 / limit);
        let times = times(&*store, &old).await;
        assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");
    }
}

pub async fn a_list_is_filtered(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "acme"));
    let failed = create(&*store, &alice, "alice's failed").await.task.id;
    create(&*store, &alice, "alice's").await;
    create(&*store, &bob, "bob's").await;
    create_private(&*store, &bob, "bob's private").await;
    store.patch(&failed, &alice, patch(json!({"status": "failed"}))).await.expect("patched");

    let listed = |viewer: &Viewer, status: Option<&str>, creator: Option<&str>| {
        let filter =
            TaskFilter { status: status.map(str::to_owned), creator: creator.and_then(UserId::parse) };
        let (store, viewer) = (store.clone(), viewer.clone());
        async move { titles(&store.list(&viewer, &filter, None, 10).await.expect("read").tasks) }
    };
    assert_eq!(listed(&alice, Some("failed"), None).await, ["alice's failed"]);
    assert_eq!(listed(&alice, None, Some("bob")).await, ["bob's"]);
    assert_eq!(listed(&bob, None, Some("bob")).await, ["bob's private", "bob's"]);
    assert_eq!(listed(&alice, Some("received"), Some("alice")).await, ["alice's"]);
    assert_eq!(listed(&alice, Some("merged"), None).await, [""; 0]);
    assert_eq!(listed(&alice, None, Some("nobody")).await, [""; 0]);
}

pub async fn counts_include_every_visible_task(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "acme"));
    let alice_elsewhere = viewer("alice", "other");
    let statuses = ["received", "coding", "merged", "merged", "failed", "pr_open"];
    for status in statuses {
        for private in [false, true] {
            let body = json!({"title": "t", "isPrivate": private});
            let id = store.create(parsed(body), &alice, None).await.expect("created").task.id;
            store.patch(&id, &alice, patch(json!({"status": status}))).await.expect("moved");
        }
    }
    create_private(&*store, &bob, "bob's").await;
    let all = Counts { active: 3, completed: 2, failed: 1 };
    let one = Counts { active: 1, ..Counts::default() };
    let both = all.plus(all);
    for (viewer, org, own) in [
        (&alice, all, all),
        (&bob, all, one),
        (&alice_elsewhere, Counts::default(), both),
        (&viewer("alice", ""), Counts::default(), both),
        (&viewer("carol", "other"), Counts::default(), Counts::default()),
    ] {
        let dashboard = store.dashboard(viewer, 2).await.expect("read");
        assert_eq!((dashboard.org_counts, dashboard.own_counts), (org, own), "{viewer:?}");
        assert_eq!(dashboard.tasks.len() as u64, 2.min(org.plus(own).total()), "{viewer:?}");
    }
}

pub async fn a_dashboard_has_the_newest_tasks(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let mut created = Vec::new();
    for n in 0..90 {
        created.push(create(&*store, &alice, &n.to_string()).await.task.id);
    }
    store
        .patch(&created[0], &alice, patch(json!({"title": "changed, still the oldest"})))
        .await
        .expect("patched");
    let dashboard = store.dashboard(&alice, 7).await.expect("read");
    assert_eq!(dashboard.tasks.len(), 7);
    let times: Vec<_> = dashboard.tasks.iter().map(|task| summary(task)["createdAt"].to_string()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let oldest_shown = times.last().cloned().expect("seven");
    let all = times_of_all(&*store, &created).await;
    assert!(all.iter().filter(|time| **time > oldest_shown).count() < 7, "a newer one is missing");
    assert_eq!(dashboard.org_counts.active, 90);
}

async fn times(store: &dyn Store, ids: &[TaskId]) -> Vec<String> {
    times_of_all(store, ids).await
}

async fn times_of_all(store: &dyn Store, ids: &[TaskId]) -> Vec<String> {
    let mut times = Vec::new();
    for id in ids {
        let task = store.task(id).await.expect("read").task.expect("there");
        times.push(full(&task)["createdAt"].to_string());
    }
    times
}
