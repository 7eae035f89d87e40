//! Dashboards: who asks at the same moment in one organisation is answered by one read of what everybody there sees, and one
//! of what only its creator sees.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use mongodb::bson::{Document, RawBsonRef, RawDocumentBuf, Timestamp, doc};

use super::{
    MongoStore,
    read::{counts, find, position, read_access, read_listed, snapshot, snapshot_time},
    select::Visible,
};
use crate::{
    store::{DashboardSnapshot, StoreError},
    task::{Counts, OrgId, Status, Task, UserId, Viewer},
};

/// Tasks of all who ask together that nobody else sees. With more of them, each is read by itself.
const MOST_OWN: usize = 1000;

/// What everybody in an organisation sees.
#[derive(Debug)]
struct SharedDashboard {
    listed: Vec<Listed>,
    snapshot: Arc<DashboardSnapshot>,
    /// Everything that belongs to it is read at this moment.
    time: Timestamp,
}

#[derive(Debug)]
struct Listed {
    /// None: only the server knows its place among others.
    place: Option<Place>,
    task: Task,
}

/// In a list the greatest comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    created_at: i64,
    id: Id,
}

/// In the order in which MongoDB has types.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Text(String),
    ObjectId([u8; 12]),
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
        (Some(org), Some(filter)) => Some(shared(store, org, filter, limit).await?),
        _ => None,
    };
    let mut session = snapshot(store, shared.as_ref().map(|shared| shared.time)).await?;
    let most = limit.max(MOST_OWN);
    let documents = find(store, &mut session, visible.only_own(), newest(), most).await?;
    let time = snapshot_time(&session)?;
    let is_whole = documents.len() < most;
    let mut own: HashMap<UserId, Vec<RawDocumentBuf>> = HashMap::new();
    if is_whole {
        for document in documents {
            if let Some(creator) = read_access(&document, &store.config.default_org).creator {
                own.entry(creator).or_default().push(document);
            }
        }
    }
    let mut dashboards = HashMap::with_capacity(users.len());
    for user in users {
        let viewer = Viewer { user: user.clone(), org: org.cloned() };
        let own = match is_whole {
            true => Own::whole(own.remove(&user).unwrap_or_default()),
            false => Own::read(store, &viewer, time, limit).await?,
        };
        dashboards.insert(user, of_one(store, &viewer, shared.as_ref(), own, time, limit).await?);
    }
    Ok(dashboards)
}

/// What only its creator sees.
struct Own {
    documents: Vec<RawDocumentBuf>,
    counts: Counts,
}

impl Own {
    fn whole(documents: Vec<RawDocumentBuf>) -> Self {
        Self { counts: counted(&documents), documents }
    }

    async fn read(
        store: &MongoStore,
        viewer: &Viewer,
        time: Timestamp,
        limit: usize,
    ) -> Result<Self, StoreError> {
        let filter = Visible::to(viewer, &store.config.default_org).only_own();
        let mut session = snapshot(store, Some(time)).await?;
        let documents = find(store, &mut session, filter.clone(), newest(), limit).await?;
        Ok(Self { documents, counts: counts(store, time, filter).await? })
    }
}

async fn of_one(
    store: &MongoStore,
    viewer: &Viewer,
    shared: Option<&SharedDashboard>,
    Own { mut documents, counts: own_counts }: Own,
    time: Timestamp,
    limit: usize,
) -> Result<Arc<DashboardSnapshot>, StoreError> {
    let Some(shared) = shared else {
        documents.truncate(limit);
        let tasks = tasks(listed(store, &documents, |task| task.access.allows(viewer)));
        let org_counts = Counts::default();
        return Ok(Arc::new(DashboardSnapshot { tasks, org_counts, own_counts, position: position(time) }));
    };
    if documents.is_empty() {
        return Ok(shared.snapshot.clone());
    }
    let own = listed(store, &documents, |task| task.access.allows(viewer));
    let all = || shared.listed.iter().chain(&own);
    let tasks = if all().all(|listed| listed.place.is_some()) {
        let mut all: Vec<&Listed> = all().collect();
        all.sort_by_key(|listed| Reverse(&listed.place));
        all.into_iter().take(limit).map(|listed| listed.task.clone()).collect()
    } else {
        let filter = Visible::to(viewer, &store.config.default_org).any();
        let mut session = snapshot(store, Some(time)).await?;
        let documents = find(store, &mut session, filter, newest(), limit).await?;
        tasks(listed(store, &documents, |task| task.access.allows(viewer)))
    };
    let DashboardSnapshot { org_counts, position, .. } = *shared.snapshot;
    Ok(Arc::new(DashboardSnapshot { tasks, org_counts, own_counts, position }))
}

async fn shared(
    store: &MongoStore,
    org: &OrgId,
    filter: Document,
    limit: usize,
) -> Result<SharedDashboard, StoreError> {
    let mut session = snapshot(store, None).await?;
    let documents = find(store, &mut session, filter.clone(), newest(), limit).await?;
    let time = snapshot_time(&session)?;
    let org_counts = match documents.len() < limit {
        true => counted(&documents),
        false => counts(store, time, filter).await?,
    };
    let listed = listed(store, &documents, |task| task.access.public_org() == Some(org));
    let tasks = listed.iter().map(|listed| listed.task.clone()).collect();
    let snapshot =
        DashboardSnapshot { tasks, org_counts, own_counts: Counts::default(), position: position(time) };
    Ok(SharedDashboard { listed, snapshot: Arc::new(snapshot), time })
}

/// Of documents that are all there are.
fn counted(documents: &[RawDocumentBuf]) -> Counts {
    let mut counts = Counts::default();
    for document in documents {
        counts.add(Status::of(document.get_str("status").unwrap_or_default()).class(), 1);
    }
    counts
}

fn newest() -> Document {
    doc! {"createdAt": -1, "_id": -1}
}

fn listed(store: &MongoStore, documents: &[RawDocumentBuf], sees: impl Fn(&Task) -> bool) -> Vec<Listed> {
    let tasks = documents.iter().filter_map(|document| {
        Some(Listed { place: place(document), task: read_listed(document, &store.config.default_org)? })
    });
    tasks.filter(|listed| sees(&listed.task)).collect()
}

fn tasks(listed: Vec<Listed>) -> Vec<Task> {
    listed.into_iter().map(|listed| listed.task).collect()
}

fn place(document: &RawDocumentBuf) -> Option<Place> {
    let id = match document.get("_id").ok()?? {
        RawBsonRef::String(text) => Id::Text(text.to_owned()),
        RawBsonRef::ObjectId(id) => Id::ObjectId(id.bytes()),
        _ => return None,
    };
    match document.get("createdAt").ok()?? {
        RawBsonRef::DateTime(time) => Some(Place { created_at: time.timestamp_millis(), id }),
        _ => None,
    }
}
