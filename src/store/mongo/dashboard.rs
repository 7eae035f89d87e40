//! Dashboards: users of one organisation who ask at the same moment are answered by one read of what everybody there sees, and
//! one of what only its creator sees.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::Timestamp;

use super::{
    MongoStore,
    newest::{Listed, Looked, counted},
    read::{position, snapshot, snapshot_time},
    select::{Visible, Ways},
};
use crate::{
    store::{DashboardSnapshot, StoreError},
    task::{Counts, OrgId, Task, UserId, Viewer},
};

/// Tasks of all who ask together that nobody else sees. With more of them, each user's are read by themselves.
const MOST_OWN: usize = 1000;
/// So many of these reads are under way at once.
const AT_ONCE: usize = 8;

/// What everybody in an organisation sees.
#[derive(Debug)]
struct SharedDashboard {
    listed: Vec<Listed>,
    snapshot: Arc<DashboardSnapshot>,
    /// Everything that belongs to it is read at this moment.
    time: Timestamp,
}

/// What only its creator sees.
struct Own {
    listed: Vec<Listed>,
    counts: Counts,
}

pub(super) async fn dashboard(
    store: &MongoStore,
    viewer: &Viewer,
    limit: usize,
) -> Result<Arc<DashboardSnapshot>, StoreError> {
    let read = |users| read(store, viewer.org.as_ref(), users, limit);
    let found = store.dashboards.ask((viewer.org.clone(), limit), viewer.user.clone(), read).await?;
    found.ok_or_else(|| StoreError::Unavailable("a dashboard was not read".to_owned()))
}

/// The dashboards of users of one organisation, or of none.
async fn read(
    store: &MongoStore,
    org: Option<&OrgId>,
    users: Vec<UserId>,
    limit: usize,
) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
    let visible = Visible::of(&users, org, &store.config.default_org);
    let shared = match (org, visible.shared()) {
        (Some(org), Some(ways)) => Some(shared(store, org, ways, limit).await?),
        _ => None,
    };
    let passes = |task: &Task| is_only_its_creators(task, org);
    let looked = Looked { store, ways: visible.only_own(), conditions: Vec::new(), passes: &passes };
    let mut session = snapshot(store, shared.as_ref().map(|shared| shared.time)).await?;
    let all = looked.all(&mut session, limit.max(MOST_OWN)).await?;
    let time = snapshot_time(&session)?;
    let own = match all {
        Some(all) => by_creator(all),
        None => read_apart(store, org, &users, time, limit).await?,
    };
    Ok(put_together(users, own, shared.as_ref(), time, limit))
}

fn is_only_its_creators(task: &Task, org: Option<&OrgId>) -> bool {
    let public_org = task.access.public_org();
    public_org.is_none() || public_org != org
}

fn by_creator(all: Vec<Listed>) -> HashMap<UserId, Own> {
    let mut own: HashMap<UserId, Vec<Listed>> = HashMap::new();
    for listed in all {
        if let Some(creator) = listed.task.access.creator.clone() {
            own.entry(creator).or_default().push(listed);
        }
    }
    own.into_iter().map(|(user, listed)| (user, Own { counts: counted(&listed), listed })).collect()
}

/// Several at once, for one user may have many.
async fn read_apart(
    store: &MongoStore,
    org: Option<&OrgId>,
    users: &[UserId],
    time: Timestamp,
    limit: usize,
) -> Result<HashMap<UserId, Own>, StoreError> {
    let reads = users.iter().map(|user| async move {
        let passes =
            |task: &Task| task.access.creator.as_ref() == Some(user) && is_only_its_creators(task, org);
        let visible = Visible::of(std::slice::from_ref(user), org, &store.config.default_org);
        let looked = Looked { store, ways: visible.only_own(), conditions: Vec::new(), passes: &passes };
        let (listed, counts, _) = looked.counted(Some(time), limit).await?;
        Ok::<_, StoreError>((user.clone(), Own { listed, counts }))
    });
    // They are collected first: the compiler can't tell that a lazy iterator of them may be sent to another thread.
    let reads: Vec<_> = reads.collect();
    stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await
}

fn put_together(
    users: Vec<UserId>,
    mut own: HashMap<UserId, Own>,
    shared: Option<&SharedDashboard>,
    time: Timestamp,
    limit: usize,
) -> HashMap<UserId, Arc<DashboardSnapshot>> {
    let none = || Own { listed: Vec::new(), counts: Counts::default() };
    let dashboards = users.into_iter().map(|user| {
        let own = own.remove(&user).unwrap_or_else(none);
        let snapshot = match shared {
            Some(shared) if own.listed.is_empty() && own.counts == Counts::default() => {
                shared.snapshot.clone()
            }
            shared => Arc::new(of_one(own, shared, time, limit)),
        };
        (user, snapshot)
    });
    dashboards.collect()
}

fn of_one(own: Own, shared: Option<&SharedDashboard>, time: Timestamp, limit: usize) -> DashboardSnapshot {
    let mut all: Vec<&Listed> = shared.iter().flat_map(|shared| &shared.listed).chain(&own.listed).collect();
    all.sort_by_key(|listed| Reverse(&listed.key));
    let tasks = all.into_iter().take(limit).map(|listed| listed.task.clone()).collect();
    let (org_counts, position) = match shared {
        Some(shared) => (shared.snapshot.org_counts, shared.snapshot.position),
        None => (Counts::default(), position(time)),
    };
    DashboardSnapshot { tasks, org_counts, own_counts: own.counts, position }
}

async fn shared(
    store: &MongoStore,
    org: &OrgId,
    ways: Ways,
    limit: usize,
) -> Result<SharedDashboard, StoreError> {
    let passes = |task: &Task| task.access.public_org() == Some(org);
    let looked = Looked { store, ways, conditions: Vec::new(), passes: &passes };
    let (listed, org_counts, time) = looked.counted(None, limit).await?;
    let tasks = listed.iter().map(|listed| listed.task.clone()).collect();
    let snapshot =
        DashboardSnapshot { tasks, org_counts, own_counts: Counts::default(), position: position(time) };
    Ok(SharedDashboard { listed, snapshot: Arc::new(snapshot), time })
}
