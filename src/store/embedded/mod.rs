//! The embedded store: tasks in one file of this process, for a single node without a database server.
//!
//! The file is a redb database with several tables. `tasks` holds each document without its timeline. `timeline` holds the
//! timeline entries one by one, so that an append costs the same for any length of the timeline, and a list reads no
//! entries. `log` holds the latest changes by sequence number, and `meta` the last number. `deliveries` holds what GitHub
//! has delivered, `githubFacts` and `githubFactDays` the facts learnt from it. `lists`, `counts` and `finds` are the index.
//! `idempotencyKeys` and `idempotencyKeyTimes` hold the keys of clients' requests, and `lastChanges` the last change of each task.
//! The index is derived from `tasks`, and is built from it if it is missing (`migrate.rs`). A write, its log entry and its
//! part of the index are one transaction, which is on disk before any client learns of the write.

mod activity;
mod database;
mod facts;
mod feed;
mod index;
mod keys;
mod last_changes;
mod lists;
mod migrate;
mod ranges;
mod read;
mod record;
mod request;
#[cfg(test)]
mod tests;
mod transaction;
mod write;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use redb::ReadableDatabase;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    AccessSnapshot, ActivityStore, AppendError, Appended, Cursor, DashboardSnapshot, Delivered, EventBatch,
    EventPage, EventQuery, Page, RetentionLimits, Store, StoreError, TaskFilter, TaskSnapshot, WriteError,
    WriteOutcome, WriteRequest,
};
use crate::{
    feed::FeedItem,
    github::Delivery,
    task::{DefaultOrg, OrgId, TaskId, UserId, Viewer, Window},
};
use database::{Database, Fault};
use keys::KeysInUse;
use write::{Write, Writer, Written};

/// A page of activity may examine many records. Further requests for pages wait.
const MAX_PAGE_SCANS: usize = 4;

/// The settings of the embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The store creates this folder if it is missing. Only the user of this process may read and write it.
    pub data_dir: PathBuf,
    pub default_org: DefaultOrg,
}

/// A [`Store`] in one file. Only one process can use it at a time: the store locks its folder as long as it lives.
#[derive(Debug)]
pub struct EmbeddedStore {
    database: Arc<Database>,
    default_org: DefaultOrg,
    writer: Writer,
    keys_in_use: KeysInUse,
    /// Limits the pages of activity that are read at once.
    page_scans: Arc<Semaphore>,
    /// The number of the last committed change. A new number wakes the followers.
    committed: watch::Sender<u64>,
}

impl EmbeddedStore {
    /// Opens the store in `config.data_dir`, or creates an empty one there. It blocks, so only the start of the process
    /// may call it.
    pub fn open(config: EmbeddedConfig) -> Result<Self, StoreError> {
        let database = Arc::new(Database::open(&config.data_dir)?);
        let prepared = database.run(|db| {
            migrate::migrate(db)?;
            last_changes::prepare(db)?;
            read::last_sequence(&db.begin_read()?)
        });
        let last = prepared.map_err(|cause| database.unusable_at_start(cause))?;
        let committed = watch::Sender::new(last);
        let writer = Writer::new(database.clone(), config.default_org.clone(), committed.clone());
        let keys_in_use = KeysInUse::default();
        Ok(Self {
            database,
            default_org: config.default_org,
            writer,
            keys_in_use,
            page_scans: Arc::new(Semaphore::new(MAX_PAGE_SCANS)),
            committed,
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction, &DefaultOrg) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let default_org = self.default_org.clone();
        database::blocking(&self.database, move |db| work(&db.begin_read()?, &default_org)).await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.ping().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|txn, _| read::last_sequence(txn).map(drop)).await
    }

    async fn follow(&self, items: mpsc::Sender<FeedItem>, stop: CancellationToken) -> Result<(), StoreError> {
        let follower = feed::Follower::new(
            self.database.clone(),
            self.default_org.clone(),
            self.committed.subscribe(),
            items,
        );
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            result = follower.run() => result,
        }
    }

    /// There is nothing to do: every acknowledged write is on disk already.
    async fn close(&self) {}

    async fn accesses(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |txn, org| read::accesses(txn, &ids, org)).await
    }

    async fn task_parts(
        &self,
        ids: &[TaskId],
        window: Window,
    ) -> Result<HashMap<TaskId, TaskSnapshot>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |txn, org| read::tasks(txn, &ids, window, org)).await
    }

    async fn dashboards(
        &self,
        org: Option<&OrgId>,
        users: &[UserId],
        limit: usize,
    ) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
        let viewers = users.iter().map(|user| Viewer { user: user.clone(), org: org.cloned() });
        let viewers: Vec<Viewer> = viewers.collect();
        self.read(move |txn, org| lists::dashboards(txn, viewers, limit, org)).await
    }

    async fn list(
        &self,
        viewer: &Viewer,
        filter: &TaskFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (viewer, filter, cursor) = (viewer.clone(), filter.clone(), cursor.cloned());
        self.read(move |txn, org| lists::list(txn, &viewer, &filter, cursor.as_ref(), limit, org)).await
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteOutcome, WriteError> {
        let taken = request.key.as_ref().map(|key| self.keys_in_use.take(key).ok_or(WriteError::KeyInUse));
        let _key_in_use = taken.transpose()?;
        match self.writer.write(Write::Request(Box::new(request))).await? {
            Written::Request(outcome) => Ok(outcome),
            _ => Err(WriteError::NotFound),
        }
    }

    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, WriteError> {
        match self.writer.write(Write::Deliver(Box::new(delivery))).await? {
            Written::Delivery(delivered) => Ok(delivered),
            _ => Ok(Delivered::NoTask),
        }
    }
}

#[async_trait]
impl ActivityStore for EmbeddedStore {
    async fn append(&self, batch: EventBatch) -> Result<Appended, AppendError> {
        match self.writer.write(Write::Append(Box::new(batch))).await {
            Ok(Written::Appended(appended)) => appended,
            Ok(_) => Err(unexpected().into()),
            Err(WriteError::Store(error)) => Err(error.into()),
            Err(error) => Err(StoreError::Unusable(error.to_string()).into()),
        }
    }

    async fn events(&self, viewer: &Viewer, query: &EventQuery) -> Result<EventPage, StoreError> {
        let (viewer, query) = (viewer.clone(), query.clone());
        // The scan continues if the caller goes away, so the scan holds the permit.
        let permit = self.page_scans.clone().acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Unavailable("the process is ending".to_owned()))?;
        self.read(move |txn, org| {
            let _permit = permit;
            activity::page(txn, &viewer, &query, org)
        })
        .await
    }

    async fn prune(&self, limits: RetentionLimits) -> Result<bool, StoreError> {
        match self.writer.write(Write::Prune(limits)).await {
            Ok(Written::Pruned(has_more)) => Ok(has_more),
            Ok(_) => Err(unexpected()),
            Err(WriteError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Unusable(error.to_string())),
        }
    }
}

/// A write has another kind of result than its request.
fn unexpected() -> StoreError {
    StoreError::Unusable("the embedded store has mixed up its writes".to_owned())
}
