//! Reads dashboards. The users of one organisation share two reads: one of the tasks that the whole organisation sees,
//! and one of the tasks that only their creators see. Counts come from memory if they are kept there.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::Timestamp;
use tokio::time::Instant;

use super::{
    MongoStore,
    cached_counts::CountScope,
    caught_up::caught_up,
    counting,
    list_query::{ListQuery, ListedTask, count_tasks},
    read::{current_snapshot_time, position, snapshot, snapshot_time},
    select::AccessFilters,
};
use crate::{
    store::{DashboardSnapshot, StoreError},
    task::{Counts, OrgId, Task, UserId},
};

/// The maximum number of tasks, visible only to their creators, in one combined read. If there are more, a separate read follows for each
/// user.
const MAX_OWN_TASKS_PER_READ: usize = 1000;
/// The maximum number of separate reads at the same time.
const MAX_CONCURRENT_READS: usize = 8;

/// The dashboard of the tasks that everybody in an organisation sees.
#[derive(Clone, Debug)]
struct SharedDashboard {
    listed: Arc<[ListedTask]>,
    snapshot: Arc<DashboardSnapshot>,
    moment: Timestamp,
}

/// A dashboard scope counts were read from an index. All requests that came before this read began share it.
#[derive(Debug)]
pub(super) struct CountedDashboard {
    begun: Instant,
    limit: usize,
    shared: SharedDashboard,
}

impl SharedDashboard {
    fn of(listed: Vec<ListedTask>, org_counts: Counts, moment: Timestamp) -> Self {
        let tasks = listed.iter().map(|listed| listed.task.clone()).collect();
        let (own_counts, position) = (Counts::default(), position(moment));
        let snapshot = Arc::new(DashboardSnapshot { tasks, org_counts, own_counts, position });
        Self { listed: listed.into(), snapshot, moment }
    }
}

/// Reads all dashboards at one moment, which is the moment of the first read.
pub(super) async fn dashboards(
    store: &MongoStore,
    org: Option<&OrgId>,
    users: &[UserId],
    limit: usize,
) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
    DashboardQuery { store, org, limit }.read(users).await
}

/// A request for the dashboards of users of one organisation, or of users without one.
struct DashboardQuery<'a> {
    store: &'a MongoStore,
    org: Option<&'a OrgId>,
    limit: usize,
}

impl DashboardQuery<'_> {
    async fn read(&self, users: &[UserId]) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
        let shared = match self.org {
            Some(org) => Some(self.shared(org).await?),
            None => None,
        };
        let moment = match &shared {
            Some(shared) => shared.moment,
            None => current_snapshot_time(self.store).await?,
        };
        let counts = self.own_counts(users, moment).await?;
        let mut own = self.own_lists(&counts, moment).await?;
        let dashboards = users.iter().map(|user| {
            let counts = counts.get(user).copied().unwrap_or_default();
            let listed = own.remove(user).unwrap_or_default();
            let snapshot = match &shared {
                Some(shared) if counts == Counts::default() => shared.snapshot.clone(),
                shared => Arc::new(self.user_snapshot(listed, counts, shared.as_ref(), moment)),
            };
            (user.clone(), snapshot)
        });
        Ok(dashboards.collect())
    }

    async fn shared(&self, org: &OrgId) -> Result<SharedDashboard, StoreError> {
        let requested_at = Instant::now();
        let (listed, is_complete, moment) = self.listed(org).await?;
        if is_complete {
            let counts = count_tasks(&listed);
            return Ok(SharedDashboard::of(listed, counts, moment));
        }
        let scope = CountScope::Org(org.clone());
        if let Some(counts) = self.kept(&scope, moment).await {
            return Ok(SharedDashboard::of(listed, counts, moment));
        }
        let mut previous_count = self.store.counting.of(org).await;
        if let Some(counts) = self.kept(&scope, moment).await {
            return Ok(SharedDashboard::of(listed, counts, moment));
        }
        // Kept counts are useless while the feed is far behind. All waiting requests then share the next read.
        if let Some(previous) = previous_count
            .as_ref()
            .filter(|previous| previous.begun >= requested_at && previous.limit == self.limit)
        {
            return Ok(previous.shared.clone());
        }
        let begun = Instant::now();
        let (listed, _, moment) = self.listed(org).await?;
        let counts = counting::of_org(self.store, org, moment).await?;
        self.store.counts.keep(scope, counts, position(moment));
        let shared = SharedDashboard::of(listed, counts, moment);
        *previous_count = Some(CountedDashboard { begun, limit: self.limit, shared: shared.clone() });
        Ok(shared)
    }

    /// Returns the newest tasks, whether these are all tasks, and the moment of the read.
    async fn listed(&self, org: &OrgId) -> Result<(Vec<ListedTask>, bool, Timestamp), StoreError> {
        let indexed_filter = AccessFilters::of(&[], Some(org), &self.store.config.default_org).shared();
        let matches = |task: &Task| task.access.public_org() == Some(org);
        let filters = indexed_filter.into_iter().collect();
        let query = ListQuery { store: self.store, filters, conditions: Vec::new(), matches: &matches };
        let mut session = snapshot(self.store, None).await?;
        let (listed, is_complete) = query.newest(&mut session, self.limit).await?;
        Ok((listed, is_complete, snapshot_time(&session)?))
    }

    async fn kept(&self, scope: &CountScope, moment: Timestamp) -> Option<Counts> {
        let (kept, moment) = (&self.store.counts, position(moment));
        let is_known = kept.knows(scope) && caught_up(self.store, moment).await;
        is_known.then(|| kept.at(scope, moment)).flatten()
    }

    /// The counts of tasks that nobody else in the organisation sees. Users without such tasks are left out.
    async fn own_counts(
        &self,
        users: &[UserId],
        moment: Timestamp,
    ) -> Result<HashMap<UserId, Counts>, StoreError> {
        let (kept, at) = (&self.store.counts, position(moment));
        let scope = |user: &UserId| CountScope::Own(user.clone(), self.org.cloned());
        let mut counts = HashMap::new();
        if users.iter().any(|user| kept.knows(&scope(user))) && caught_up(self.store, at).await {
            counts.extend(users.iter().filter_map(|user| Some((user.clone(), kept.at(&scope(user), at)?))));
        }
        let others: Vec<UserId> = users.iter().filter(|user| !counts.contains_key(*user)).cloned().collect();
        if !others.is_empty() {
            for (user, own) in counting::of_creators(self.store, &others, self.org, moment).await? {
                kept.keep(scope(&user), own, at);
                counts.insert(user, own);
            }
        }
        counts.retain(|_, own| *own != Counts::default());
        Ok(counts)
    }

    /// The newest of these tasks, for each user with counts.
    async fn own_lists(
        &self,
        counts: &HashMap<UserId, Counts>,
        moment: Timestamp,
    ) -> Result<HashMap<UserId, Vec<ListedTask>>, StoreError> {
        let users: Vec<UserId> = counts.keys().cloned().collect();
        let number: u64 = counts.values().map(|counts| counts.total()).sum();
        let all = match usize::try_from(number) {
            Ok(0) => return Ok(HashMap::new()),
            Ok(number) if number <= MAX_OWN_TASKS_PER_READ => self.all_own(&users, number, moment).await?,
            _ => HashMap::new(),
        };
        // The filters may miss some documents, because an index scan can't recognise all of them.
        let is_complete = |user: &UserId| {
            let found = all.get(user).map_or(0, Vec::len);
            counts.get(user).is_some_and(|counts| counts.total() == found as u64)
        };
        let separate: Vec<UserId> = users.into_iter().filter(|user| !is_complete(user)).collect();
        // The futures are collected first, because the compiler can't prove that a lazy iterator over them is `Send`.
        let reads: Vec<_> = separate.into_iter().map(|user| self.newest_own(user, moment)).collect();
        let separate: HashMap<_, _> =
            stream::iter(reads).buffer_unordered(MAX_CONCURRENT_READS).try_collect().await?;
        Ok(all.into_iter().chain(separate).collect())
    }

    async fn all_own(
        &self,
        users: &[UserId],
        number: usize,
        moment: Timestamp,
    ) -> Result<HashMap<UserId, Vec<ListedTask>>, StoreError> {
        let requested: HashSet<&UserId> = users.iter().collect();
        let matches = |task: &Task| {
            task.access.is_only_its_creators(self.org)
                && task.access.creator.as_ref().is_some_and(|creator| requested.contains(creator))
        };
        let filters = AccessFilters::of(users, self.org, &self.store.config.default_org).only_own();
        let query = ListQuery { store: self.store, filters, conditions: Vec::new(), matches: &matches };
        let mut session = snapshot(self.store, Some(moment)).await?;
        let mut own: HashMap<UserId, Vec<ListedTask>> = HashMap::new();
        for listed in query.any(&mut session, number).await? {
            if let Some(creator) = listed.task.access.creator.clone() {
                own.entry(creator).or_default().push(listed);
            }
        }
        Ok(own)
    }

    /// The newest tasks that only this user sees. Tasks that the organisation sees too are on the shared dashboard if they are new enough.
    async fn newest_own(
        &self,
        user: UserId,
        moment: Timestamp,
    ) -> Result<(UserId, Vec<ListedTask>), StoreError> {
        let matches = |task: &Task| task.access.creator.as_ref() == Some(&user);
        let filters = vec![
            AccessFilters::of(std::slice::from_ref(&user), self.org, &self.store.config.default_org).own(),
        ];
        let query = ListQuery { store: self.store, filters, conditions: Vec::new(), matches: &matches };
        let mut session = snapshot(self.store, Some(moment)).await?;
        let (mut listed, _) = query.newest(&mut session, self.limit).await?;
        listed.retain(|listed| listed.task.access.is_only_its_creators(self.org));
        Ok((user, listed))
    }

    fn user_snapshot(
        &self,
        own: Vec<ListedTask>,
        own_counts: Counts,
        shared: Option<&SharedDashboard>,
        moment: Timestamp,
    ) -> DashboardSnapshot {
        let shared_list = shared.iter().flat_map(|shared| shared.listed.iter());
        let mut all: Vec<&ListedTask> = shared_list.chain(&own).collect();
        all.sort_by_key(|listed| Reverse(&listed.key));
        let tasks = all.into_iter().take(self.limit).map(|listed| listed.task.clone()).collect();
        let org_counts = shared.map_or_else(Counts::default, |shared| shared.snapshot.org_counts);
        DashboardSnapshot { tasks, org_counts, own_counts, position: position(moment) }
    }
}
