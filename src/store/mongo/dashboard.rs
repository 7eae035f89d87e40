//! Reads dashboards. Simultaneous requests of users of one organisation share two reads: one of the tasks that the whole organisation sees,
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
    caught_up::caught_up,
    counting,
    kept_counts::Whose,
    newest::{Listed, Looked, counted},
    read::{now, position, snapshot, snapshot_time},
    select::Visible,
};
use crate::{
    store::{DashboardSnapshot, StoreError},
    task::{Counts, OrgId, Task, UserId, Viewer},
};

/// The maximum number of tasks, visible only to their creators, in one combined read. If there are more, a separate read follows for each
/// user.
const MOST_OWN: usize = 1000;
/// The maximum number of separate reads at the same time.
const AT_ONCE: usize = 8;

/// The dashboard of the tasks that everybody in an organisation sees.
#[derive(Clone, Debug)]
struct SharedDashboard {
    listed: Arc<[Listed]>,
    snapshot: Arc<DashboardSnapshot>,
    moment: Timestamp,
}

/// A dashboard whose counts were read from an index. All requests that came before this read began share it.
#[derive(Debug)]
pub(super) struct Counted {
    begun: Instant,
    limit: usize,
    shared: SharedDashboard,
}

impl SharedDashboard {
    fn of(listed: Vec<Listed>, org_counts: Counts, moment: Timestamp) -> Self {
        let tasks = listed.iter().map(|listed| listed.task.clone()).collect();
        let (own_counts, position) = (Counts::default(), position(moment));
        let snapshot = Arc::new(DashboardSnapshot { tasks, org_counts, own_counts, position });
        Self { listed: listed.into(), snapshot, moment }
    }
}

pub(super) async fn dashboard(
    store: &MongoStore,
    viewer: &Viewer,
    limit: usize,
) -> Result<Arc<DashboardSnapshot>, StoreError> {
    let read = |users| async move {
        let asked = Asked { store, org: viewer.org.as_ref(), limit };
        asked.read(users).await
    };
    let found = store.dashboards.ask((viewer.org.clone(), limit), viewer.user.clone(), read).await?;
    found.ok_or_else(|| StoreError::Unavailable("a dashboard was not read".to_owned()))
}

/// A request for the dashboards of users of one organisation, or of users without one.
struct Asked<'a> {
    store: &'a MongoStore,
    org: Option<&'a OrgId>,
    limit: usize,
}

impl Asked<'_> {
    /// Reads all dashboards at one moment, which is the moment of the first read.
    async fn read(&self, users: Vec<UserId>) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
        let shared = match self.org {
            Some(org) => Some(self.shared(org).await?),
            None => None,
        };
        let moment = match &shared {
            Some(shared) => shared.moment,
            None => now(self.store).await?,
        };
        let counts = self.own_counts(&users, moment).await?;
        let mut own = self.own_lists(&counts, moment).await?;
        let dashboards = users.into_iter().map(|user| {
            let counts = counts.get(&user).copied().unwrap_or_default();
            let listed = own.remove(&user).unwrap_or_default();
            let snapshot = match &shared {
                Some(shared) if counts == Counts::default() => shared.snapshot.clone(),
                shared => Arc::new(self.of_one(listed, counts, shared.as_ref(), moment)),
            };
            (user, snapshot)
        });
        Ok(dashboards.collect())
    }

    async fn shared(&self, org: &OrgId) -> Result<SharedDashboard, StoreError> {
        let asked = Instant::now();
        let (listed, is_all, moment) = self.listed(org).await?;
        if is_all {
            let counts = counted(&listed);
            return Ok(SharedDashboard::of(listed, counts, moment));
        }
        let whose = Whose::Org(org.clone());
        if let Some(counts) = self.kept(&whose, moment).await {
            return Ok(SharedDashboard::of(listed, counts, moment));
        }
        let mut turn = self.store.counting.of(org).await;
        if let Some(counts) = self.kept(&whose, moment).await {
            return Ok(SharedDashboard::of(listed, counts, moment));
        }
        // Kept counts are useless while the feed is far behind. All waiting requests then share the next read.
        if let Some(left) = turn.as_ref().filter(|left| left.begun >= asked && left.limit == self.limit) {
            return Ok(left.shared.clone());
        }
        let begun = Instant::now();
        let (listed, _, moment) = self.listed(org).await?;
        let counts = counting::of_org(self.store, org, moment).await?;
        self.store.counts.keep(whose, counts, position(moment));
        let shared = SharedDashboard::of(listed, counts, moment);
        *turn = Some(Counted { begun, limit: self.limit, shared: shared.clone() });
        Ok(shared)
    }

    /// Returns the newest tasks, whether these are all tasks, and the moment of the read.
    async fn listed(&self, org: &OrgId) -> Result<(Vec<Listed>, bool, Timestamp), StoreError> {
        let way = Visible::of(&[], Some(org), &self.store.config.default_org).shared();
        let passes = |task: &Task| task.access.public_org() == Some(org);
        let ways = way.into_iter().collect();
        let looked = Looked { store: self.store, ways, conditions: Vec::new(), passes: &passes };
        let mut session = snapshot(self.store, None).await?;
        let (listed, is_all) = looked.newest(&mut session, self.limit).await?;
        Ok((listed, is_all, snapshot_time(&session)?))
    }

    async fn kept(&self, whose: &Whose, moment: Timestamp) -> Option<Counts> {
        let (kept, moment) = (&self.store.counts, position(moment));
        let is_known = kept.knows(whose) && caught_up(self.store, moment).await;
        is_known.then(|| kept.at(whose, moment)).flatten()
    }

    /// The counts of tasks that nobody else in the organisation sees. Users without such tasks are left out.
    async fn own_counts(
        &self,
        users: &[UserId],
        moment: Timestamp,
    ) -> Result<HashMap<UserId, Counts>, StoreError> {
        let (kept, at) = (&self.store.counts, position(moment));
        let whose = |user: &UserId| Whose::Own(user.clone(), self.org.cloned());
        let mut counts = HashMap::new();
        if users.iter().any(|user| kept.knows(&whose(user))) && caught_up(self.store, at).await {
            counts.extend(users.iter().filter_map(|user| Some((user.clone(), kept.at(&whose(user), at)?))));
        }
        let others: Vec<UserId> = users.iter().filter(|user| !counts.contains_key(*user)).cloned().collect();
        if !others.is_empty() {
            for (user, own) in counting::of_creators(self.store, &others, self.org, moment).await? {
                kept.keep(whose(&user), own, at);
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
    ) -> Result<HashMap<UserId, Vec<Listed>>, StoreError> {
        let users: Vec<UserId> = counts.keys().cloned().collect();
        let number: u64 = counts.values().map(|counts| counts.total()).sum();
        let all = match usize::try_from(number) {
            Ok(0) => return Ok(HashMap::new()),
            Ok(number) if number <= MOST_OWN => self.all_own(&users, number, moment).await?,
            _ => HashMap::new(),
        };
        // The filters may miss some documents, because an index scan can't recognise all of them.
        let is_all = |user: &UserId| {
            let found = all.get(user).map_or(0, Vec::len);
            counts.get(user).is_some_and(|counts| counts.total() == found as u64)
        };
        let apart: Vec<UserId> = users.into_iter().filter(|user| !is_all(user)).collect();
        // The futures are collected first, because the compiler can't prove that a lazy iterator over them is `Send`.
        let reads: Vec<_> = apart.into_iter().map(|user| self.newest_own(user, moment)).collect();
        let apart: HashMap<_, _> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(all.into_iter().chain(apart).collect())
    }

    async fn all_own(
        &self,
        users: &[UserId],
        number: usize,
        moment: Timestamp,
    ) -> Result<HashMap<UserId, Vec<Listed>>, StoreError> {
        let asked: HashSet<&UserId> = users.iter().collect();
        let passes = |task: &Task| {
            task.access.is_only_its_creators(self.org)
                && task.access.creator.as_ref().is_some_and(|creator| asked.contains(creator))
        };
        let ways = Visible::of(users, self.org, &self.store.config.default_org).only_own();
        let looked = Looked { store: self.store, ways, conditions: Vec::new(), passes: &passes };
        let mut session = snapshot(self.store, Some(moment)).await?;
        let mut own: HashMap<UserId, Vec<Listed>> = HashMap::new();
        for listed in looked.any(&mut session, number).await? {
            if let Some(creator) = listed.task.access.creator.clone() {
                own.entry(creator).or_default().push(listed);
            }
        }
        Ok(own)
    }

    /// The newest tasks that only this user sees. Tasks that the organisation sees too are on the shared dashboard if they are new enough.
    async fn newest_own(&self, user: UserId, moment: Timestamp) -> Result<(UserId, Vec<Listed>), StoreError> {
        let passes = |task: &Task| task.access.creator.as_ref() == Some(&user);
        let ways =
            vec![Visible::of(std::slice::from_ref(&user), self.org, &self.store.config.default_org).own()];
        let looked = Looked { store: self.store, ways, conditions: Vec::new(), passes: &passes };
        let mut session = snapshot(self.store, Some(moment)).await?;
        let (mut listed, _) = looked.newest(&mut session, self.limit).await?;
        listed.retain(|listed| listed.task.access.is_only_its_creators(self.org));
        Ok((user, listed))
    }

    fn of_one(
        &self,
        own: Vec<Listed>,
        own_counts: Counts,
        shared: Option<&SharedDashboard>,
        moment: Timestamp,
    ) -> DashboardSnapshot {
        let shared_list = shared.iter().flat_map(|shared| shared.listed.iter());
        let mut all: Vec<&Listed> = shared_list.chain(&own).collect();
        all.sort_by_key(|listed| Reverse(&listed.key));
        let tasks = all.into_iter().take(self.limit).map(|listed| listed.task.clone()).collect();
        let org_counts = shared.map_or_else(Counts::default, |shared| shared.snapshot.org_counts);
        DashboardSnapshot { tasks, org_counts, own_counts, position: position(moment) }
    }
}
