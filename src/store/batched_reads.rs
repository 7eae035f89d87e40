//! Reads snapshots for many callers at once: callers with the same question share one snapshot, and different questions of one moment are
//! read together.

use std::{collections::HashMap, fmt::Debug, marker::PhantomData, sync::Arc};

use async_trait::async_trait;

use super::{
    AccessSnapshot, DashboardSnapshot, Store, StoreError, TaskSnapshot,
    coalescer::{Answered, Coalescer, Source},
};
use crate::task::{OrgId, TaskId, UserId, Viewer, Window};

/// The only way in which clients' requests read single tasks and dashboards. All callers that share a snapshot also share what is made of
/// it: `T` of a task, `D` of a dashboard.
#[derive(Debug)]
pub struct BatchedReads<T = TaskSnapshot, D = Arc<DashboardSnapshot>>
where
    T: From<TaskSnapshot> + Debug + Send + Sync + 'static,
    D: From<Arc<DashboardSnapshot>> + Debug + Send + Sync + 'static,
{
    accesses: Coalescer<AccessReads>,
    tasks: Coalescer<TaskReads<T>>,
    dashboards: Coalescer<DashboardReads<D>>,
}

impl<T, D> BatchedReads<T, D>
where
    T: From<TaskSnapshot> + Debug + Send + Sync + 'static,
    D: From<Arc<DashboardSnapshot>> + Debug + Send + Sync + 'static,
{
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            accesses: Coalescer::new(AccessReads(store.clone())),
            tasks: Coalescer::new(TaskReads { store: store.clone(), made: PhantomData }),
            dashboards: Coalescer::new(DashboardReads { store, made: PhantomData }),
        }
    }

    /// Does the same as [`Store::access`].
    pub async fn access(&self, id: &TaskId) -> Result<Arc<AccessSnapshot>, StoreError> {
        Ok(self.accesses.ask(&(), id).await?.answer)
    }

    /// Does the same as [`Store::task_part`].
    pub async fn task_part(&self, id: &TaskId, window: Window) -> Result<Answered<Arc<T>>, StoreError> {
        self.tasks.ask(&window, id).await
    }

    /// Does the same as [`Store::dashboard`].
    pub async fn dashboard(&self, viewer: &Viewer, limit: usize) -> Result<Answered<Arc<D>>, StoreError> {
        self.dashboards.ask(&(viewer.org.clone(), limit), &viewer.user).await
    }
}

#[derive(Debug)]
struct AccessReads(Arc<dyn Store>);

#[async_trait]
impl Source for AccessReads {
    type Group = ();
    type Question = TaskId;
    type Answer = Arc<AccessSnapshot>;

    async fn read(
        &self,
        (): &(),
        ids: &[TaskId],
    ) -> Result<HashMap<TaskId, Arc<AccessSnapshot>>, StoreError> {
        let found = self.0.accesses(ids).await?;
        Ok(found.into_iter().map(|(id, access)| (id, Arc::new(access))).collect())
    }
}

#[derive(Debug)]
struct TaskReads<T> {
    store: Arc<dyn Store>,
    made: PhantomData<T>,
}

#[async_trait]
impl<T: From<TaskSnapshot> + Debug + Send + Sync + 'static> Source for TaskReads<T> {
    type Group = Window;
    type Question = TaskId;
    type Answer = Arc<T>;

    async fn read(&self, window: &Window, ids: &[TaskId]) -> Result<HashMap<TaskId, Arc<T>>, StoreError> {
        let found = self.store.task_parts(ids, *window).await?;
        Ok(found.into_iter().map(|(id, snapshot)| (id, Arc::new(T::from(snapshot)))).collect())
    }
}

/// Users of different organisations are not read together, because one of the organisations may take long to count.
#[derive(Debug)]
struct DashboardReads<D> {
    store: Arc<dyn Store>,
    made: PhantomData<D>,
}

#[async_trait]
impl<D: From<Arc<DashboardSnapshot>> + Debug + Send + Sync + 'static> Source for DashboardReads<D> {
    type Group = (Option<OrgId>, usize);
    type Question = UserId;
    type Answer = Arc<D>;

    async fn read(
        &self,
        (org, limit): &(Option<OrgId>, usize),
        users: &[UserId],
    ) -> Result<HashMap<UserId, Arc<D>>, StoreError> {
        let found = self.store.dashboards(org.as_ref(), users, *limit).await?;
        // The snapshots are kept until the end, so that no two of them have the same address.
        let mut made: HashMap<*const DashboardSnapshot, Arc<D>> = HashMap::new();
        let of = |snapshot: &Arc<DashboardSnapshot>| Arc::new(D::from(snapshot.clone()));
        let dashboards = found.iter().map(|(user, snapshot)| {
            (user.clone(), made.entry(Arc::as_ptr(snapshot)).or_insert_with(|| of(snapshot)).clone())
        });
        Ok(dashboards.collect())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::{
        store::{EmbeddedConfig, EmbeddedStore},
        task::{DefaultOrg, NewTask},
    };

    #[derive(Debug)]
    struct Made(());

    impl From<TaskSnapshot> for Made {
        fn from(_: TaskSnapshot) -> Self {
            Self(())
        }
    }

    impl From<Arc<DashboardSnapshot>> for Made {
        fn from(_: Arc<DashboardSnapshot>) -> Self {
            Self(())
        }
    }

    #[tokio::test]
    async fn callers_that_share_a_snapshot_share_what_is_made_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config =
            EmbeddedConfig { data_dir: folder.path().to_owned(), default_org: DefaultOrg::default() };
        let store = Arc::new(EmbeddedStore::open(config).expect("opened"));
        let [alice, bob, carol] = ["alice", "bob", "carol"]
            .map(|user| Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse("acme") });
        let private = serde_json::json!({"title": "private", "isPrivate": true});
        let task = NewTask::parse(private).expect("a task");
        let id = store.create(task, &alice, None).await.expect("created").task.id;
        let reads = BatchedReads::<Made, Made>::new(store);

        let tasks = join_all([(); 3].map(|()| reads.task_part(&id, Window::ALL))).await;
        let tasks: Vec<_> = tasks.into_iter().map(|read| read.expect("read")).collect();
        assert!(tasks.iter().all(|task| Arc::ptr_eq(&task.answer, &tasks[0].answer)));
        assert_eq!(tasks.iter().map(|task| task.is_own).collect::<Vec<_>>(), [true, false, false]);
        let later = reads.task_part(&id, Window::ALL).await.expect("read");
        assert!(later.is_own && !Arc::ptr_eq(&later.answer, &tasks[0].answer));

        let dashboards = join_all([&alice, &bob, &carol].map(|viewer| reads.dashboard(viewer, 5))).await;
        let [alices, bobs, carols] = &dashboards[..] else { panic!("{dashboards:?}") };
        let answer = |read: &Result<Answered<Arc<Made>>, StoreError>| read.clone().expect("read").answer;
        assert!(Arc::ptr_eq(&answer(bobs), &answer(carols)));
        assert!(!Arc::ptr_eq(&answer(alices), &answer(bobs)));
    }
}
