//! The conformance tests of [`Store`]. [`conformance!`] runs them against every backend, in one module for each.

pub mod deliveries;
mod embedded;
mod feeds;
mod forks_and_renames;
pub mod keys;
mod mongo;
mod reads;
pub mod timelines;
mod writes;

use std::{any::Any, future::Future, sync::Arc, time::Duration};

use serde_json::{Value, json};
use taskcast::{
    feed::{Change, FeedItem, Position},
    store::Store,
    task::{
        DefaultOrg, FullTask, FullView, NewTask, OrgId, Summary, Task, TaskId, TaskPatch, UserId, Viewer,
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The longest time that a test waits for one event.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes stores of one kind.
pub trait Backend {
    /// The name that the store reports, for example in `/api/health`.
    fn kind(&self) -> &'static str;
    /// Creates and prepares an empty store.
    fn fresh(&self, default_org: DefaultOrg) -> impl Future<Output = Prepared> + Send;
}

/// A store, and what must live as long as the store: a folder, a server, or a database to drop.
pub struct Prepared {
    pub store: Arc<dyn Store>,
    pub keep: Box<dyn Any + Send>,
}

/// Makes one test for each case. Each test has its own store.
macro_rules! conformance {
    ($backend:expr) => {
        crate::store::conformance!(@cases $backend,
            writes: a_task_is_created, writes_to_forbidden_tasks_are_refused, answers_are_accepted_only_after_questions,
                a_patch_changes_only_its_fields, status_changes_are_checked, writes_are_read_under_both_names,
                concurrent_writes_are_all_kept;
            reads: absent_tasks_are_not_found, the_access_of_a_task_is_read_separately,
                batch_reads_equal_single_reads, a_viewer_sees_only_permitted_tasks,
                tasks_without_an_organisation_belong_to_the_default_one, pages_neither_skip_nor_repeat, a_list_is_filtered,
                counts_include_every_visible_task, a_dashboard_has_the_newest_tasks;
            timelines: every_part_of_a_timeline_is_read, a_part_and_its_later_changes_have_no_gap;
            deliveries: a_delivery_is_one_change, concurrent_copies_of_a_delivery_have_one_effect,
                concurrent_deliveries_end_in_the_same_state_as_ordered_ones, a_delivery_finds_its_task_in_every_way,
                a_delivery_without_a_task_leaves_no_mark, concurrent_deliveries_and_writes_are_all_kept;
            forks_and_renames: a_fork_does_not_take_over_a_task, checks_of_a_fork_find_its_pull_request,
                tasks_follow_a_renamed_repository, links_follow_a_renamed_repository;
            keys: a_repeated_request_writes_nothing, a_key_belongs_to_one_user_and_one_content, a_refused_write_leaves_no_key,
                equal_requests_at_once_have_one_effect, a_write_knows_its_position, racing_writes_know_their_positions,
                a_condition_holds_until_the_task_changes, of_two_writes_with_one_condition_one_is_made;
            feeds: every_write_is_one_change, refused_writes_are_no_change, snapshots_know_their_position,
                dashboards_know_their_position, a_new_follower_receives_earlier_changes, a_follower_ends_when_stopped
        );
    };
    (@cases $backend:expr, $($module:ident: $($case:ident),+);+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::store::$module::$case(&$backend).await;
            }
        )+)+
    };
}
pub(crate) use conformance;

pub fn no_org() -> DefaultOrg {
    DefaultOrg(None)
}

pub fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

pub fn parsed(body: Value) -> NewTask {
    NewTask::parse(body).expect("a valid task")
}

pub fn patch(body: Value) -> TaskPatch {
    TaskPatch::parse(body).expect("a valid patch")
}

pub fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).expect("an id")
}

/// The complete view of a task, as a client receives it.
pub fn full(task: &FullTask) -> Value {
    serde_json::to_value(FullView(task)).expect("serialises")
}

pub fn summary(task: &Task) -> Value {
    serde_json::to_value(Summary(task)).expect("serialises")
}

pub fn titles(tasks: &[Task]) -> Vec<String> {
    tasks.iter().map(|task| summary(task)["title"].as_str().expect("a title").to_owned()).collect()
}

pub async fn create(store: &dyn Store, creator: &Viewer, title: &str) -> FullTask {
    store.create(parsed(json!({"title": title})), creator, None).await.expect("created")
}

pub async fn create_private(store: &dyn Store, creator: &Viewer, title: &str) -> FullTask {
    let task = parsed(json!({"title": title, "isPrivate": true}));
    store.create(task, creator, None).await.expect("created")
}

/// The feed of a store, which a test follows.
pub struct Following {
    items: mpsc::Receiver<FeedItem>,
    stop: CancellationToken,
    pub task: tokio::task::JoinHandle<Result<(), taskcast::store::StoreError>>,
    pub opened: Position,
}

impl Following {
    pub async fn start(store: &Arc<dyn Store>) -> Self {
        let (sender, mut items) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (store, stop) = (store.clone(), stop.clone());
            async move { store.follow(sender, stop).await }
        });
        match next(&mut items).await {
            FeedItem::Opened(opened) => Self { items, stop, task, opened },
            other => panic!("a feed begins with Opened, not {other:?}"),
        }
    }

    /// The next `count` changes. Any other item except `Idle` fails the test.
    pub async fn changes(&mut self, count: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut last = self.opened;
        while changes.len() < count {
            match next(&mut self.items).await {
                FeedItem::Change(change) => {
                    assert!(change.position > last, "{:?} after {last:?}", change.position);
                    last = change.position;
                    changes.push(*change);
                }
                FeedItem::Idle(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        changes
    }

    /// Reads and ignores all items until the returned value is dropped.
    pub fn discarded(mut self) -> tokio_util::sync::DropGuard {
        let stop = self.stop.clone().drop_guard();
        tokio::spawn(async move { while self.items.recv().await.is_some() {} });
        stop
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }
}

async fn next(items: &mut mpsc::Receiver<FeedItem>) -> FeedItem {
    tokio::time::timeout(DEADLINE, items.recv()).await.expect("in time").expect("the feed goes on")
}
