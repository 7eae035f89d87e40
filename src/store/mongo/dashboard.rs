//! Dashboards: what an organisation sees is read once for all who ask at the same moment, what only one user sees for each.

use std::{cmp::Reverse, sync::Arc};

use mongodb::bson::{Document, RawBsonRef, RawDocumentBuf, Timestamp, doc};

use super::{
    MongoStore,
    read::{counts, find, position, read_listed, snapshot, snapshot_time},
    select::Visible,
};
use crate::{
    store::{DashboardSnapshot, StoreError},
    task::{Counts, OrgId, Status, Task, Viewer},
};

/// What everybody in an organisation sees.
#[derive(Debug)]
pub(super) struct SharedDashboard {
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
    let visible = Visible::to(viewer, &store.config.default_org);
    let shared = match (&viewer.org, visible.shared()) {
        (Some(org), Some(filter)) => {
            let read = async { shared(store, org, filter, limit).await.map(Arc::new) };
            Some(store.shared_dashboards.share(&(org.clone(), limit), false, read).await?.0)
        }
        _ => None,
    };
    let mut session = snapshot(store, shared.as_ref().map(|shared| shared.time)).await?;
    let documents = find(store, &mut session, visible.only_own(), newest(), limit).await?;
    let time = snapshot_time(&session)?;
    let own_counts = match documents.len() < limit {
        true => counted(&documents),
        false => counts(store, time, visible.only_own()).await?,
    };
    let own = listed(store, &documents, |task| task.access.allows(viewer));
    let Some(shared) = shared else {
        let tasks = own.into_iter().map(|listed| listed.task).collect();
        let org_counts = Counts::default();
        return Ok(Arc::new(DashboardSnapshot { tasks, org_counts, own_counts, position: position(time) }));
    };
    if documents.is_empty() {
        return Ok(shared.snapshot.clone());
    }
    let all = || shared.listed.iter().chain(&own);
    let tasks = match all().all(|listed| listed.place.is_some()) {
        true => {
            let mut all: Vec<&Listed> = all().collect();
            all.sort_by_key(|listed| Reverse(&listed.place));
            all.into_iter().take(limit).map(|listed| listed.task.clone()).collect()
        }
        false => {
            let mut session = snapshot(store, Some(time)).await?;
            let documents = find(store, &mut session, visible.any(), newest(), limit).await?;
            let all = listed(store, &documents, |task| task.access.allows(viewer));
            all.into_iter().map(|listed| listed.task).collect()
        }
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
    let org_counts = counts(store, time, filter).await?;
    let listed = listed(store, &documents, |task| task.access.public_org() == Some(org));
    let tasks = listed.iter().map(|listed| listed.task.clone()).collect();
    let snapshot =
        DashboardSnapshot { tasks, org_counts, own_counts: Counts::default(), position: position(time) };
    Ok(SharedDashboard { listed, snapshot: Arc::new(snapshot), time })
}

/// What [`counts`] says of these.
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
