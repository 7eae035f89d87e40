//! The store itself: it holds the client and the shared state, and implements the trait [`Store`].

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mongodb::{
    Client, Collection, Database,
    bson::{Document, RawDocumentBuf, doc},
    options::{CollectionOptions, ConnectionString, ReadConcern, WriteConcern},
};
use tokio::sync::{Mutex, OnceCell, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    cached_counts::CachedCounts,
    config::{MongoConfig, client_options, database_name, max_waiting_writes, parse_uri},
    counting::Turns,
    dashboard::{self, CountedDashboard},
    deliver,
    failure::{store_error, with_timeout},
    follow,
    indexes::Hints,
    last_changes::LastChanges,
    prepare, probe, read,
    stream::StreamState,
    write,
};
use crate::{
    feed::FeedItem,
    github::Delivery,
    rate_limited_log::rate_limited_log,
    store::{
        AccessSnapshot, ChangeStreamStatus, Cursor, DashboardSnapshot, Delivered, MongoProbe, Page, Store,
        StoreError, TaskFilter, TaskSnapshot, WriteError, WriteOutcome, WriteRequest,
    },
    task::{OrgId, TaskId, UserId, Viewer, Window},
};

/// Tasks in one collection of a MongoDB replica set.
pub struct MongoStore {
    pub(super) config: MongoConfig,
    uri: ConnectionString,
    database: String,
    /// Created at the first use, because a `mongodb+srv` URI needs DNS. DNS may be unavailable, as the server may be.
    client: OnceCell<Client>,
    pub(super) stream: StreamState,
    pub(super) counts: CachedCounts,
    pub(super) last_changes: LastChanges,
    pub(super) hints: Hints,
    /// A caller that checks for changes that the feed has not read holds this lock. Other callers wait for the result.
    pub(super) catch_up_lock: Mutex<()>,
    /// `true` means that this node has found ids of this kind in the collection.
    pub(super) has_text_ids: AtomicBool,
    pub(super) has_other_ids: AtomicBool,
    /// Only one caller at a time counts the tasks of an organisation.
    pub(super) counting: Turns<CountedDashboard>,
    /// Limits the writes that may wait on the server for a locked document.
    pub(super) writes: Semaphore,
    ambiguous_ids: AtomicU64,
}

impl MongoStore {
    /// Creates the store without any request. [`Store::prepare`] is the first call that needs the server.
    pub fn new(config: MongoConfig) -> Result<Self, StoreError> {
        let uri = parse_uri(&config.uri)?;
        let database = database_name(&config, &uri);
        let writes = Semaphore::new(max_waiting_writes(&uri));
        Ok(Self {
            config,
            uri,
            database,
            client: OnceCell::new(),
            stream: StreamState::default(),
            counts: CachedCounts::default(),
            last_changes: LastChanges::default(),
            hints: Hints::default(),
            catch_up_lock: Mutex::default(),
            has_text_ids: AtomicBool::new(false),
            has_other_ids: AtomicBool::new(false),
            counting: Turns::default(),
            writes,
            ambiguous_ids: AtomicU64::new(0),
        })
    }

    /// Collects facts about the server for `taskcast check`, and changes nothing. `writes` says whether the task API will write.
    pub async fn probe(&self, writes: bool) -> Result<MongoProbe, StoreError> {
        probe::probe(self, writes).await
    }

    /// Counts and logs that a requested id is the text of two documents' ids.
    pub(super) fn ambiguous(&self) {
        self.ambiguous_ids.fetch_add(1, Ordering::Relaxed);
        rate_limited_log!(
            warn,
            "two documents have _ids of different types with the same text: one of them can't be joined or fetched, see \
             docs/troubleshooting.md"
        );
    }

    pub(super) async fn client(&self) -> Result<&Client, StoreError> {
        self.client
            .get_or_try_init(|| async { Client::with_options(client_options(&self.uri).await?) })
            .await
            .map_err(store_error)
    }

    pub(super) async fn database(&self) -> Result<Database, StoreError> {
        Ok(self.client().await?.database(&self.database))
    }

    pub(super) async fn collection(&self) -> Result<Collection<RawDocumentBuf>, StoreError> {
        Ok(self.database().await?.collection(&self.config.collection))
    }

    /// The marks of the deliveries that were processed.
    pub(super) async fn deliveries(&self) -> Result<Collection<Document>, StoreError> {
        let options = CollectionOptions::builder().read_concern(ReadConcern::majority()).build();
        Ok(self.database().await?.collection_with_options(&self.config.deliveries(), options))
    }

    /// The idempotency keys that were used.
    pub(super) async fn keys(&self) -> Result<Collection<Document>, StoreError> {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(WriteConcern::majority())
            .build();
        Ok(self.database().await?.collection_with_options(&self.config.keys(), options))
    }

    /// The facts that deliveries contained.
    pub(super) async fn facts(&self) -> Result<Collection<RawDocumentBuf>, StoreError> {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(WriteConcern::majority())
            .build();
        Ok(self.database().await?.collection_with_options(&self.config.facts(), options))
    }

    /// The collection for reads in a snapshot session. The read concern is set here, because the driver keeps a level that is set
    /// elsewhere.
    pub(super) async fn snapshot_collection(&self) -> Result<Collection<RawDocumentBuf>, StoreError> {
        let options = CollectionOptions::builder().read_concern(ReadConcern::snapshot()).build();
        Ok(self.database().await?.collection_with_options(&self.config.collection, options))
    }
}

/// Leaves the URI out, because it contains a password.
impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoStore")
            .field("database", &self.database)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MongoStore {
    fn kind(&self) -> &'static str {
        "mongodb"
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        prepare::prepare(self).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let database = self.database().await?;
        with_timeout(database.run_command(doc! {"ping": 1})).await.map(drop).map_err(store_error)
    }

    async fn follow(&self, items: mpsc::Sender<FeedItem>, stop: CancellationToken) -> Result<(), StoreError> {
        follow::follow(self, items, stop).await
    }

    fn stream(&self) -> Option<ChangeStreamStatus> {
        Some(self.stream.status())
    }

    fn ambiguous_ids(&self) -> u64 {
        self.ambiguous_ids.load(Ordering::Relaxed)
    }

    async fn oplog_window(&self) -> Option<Duration> {
        let client = self.client().await.ok()?;
        probe::oplog_window(&client.database("local")).await.map(Duration::from_secs)
    }

    /// Shuts the client down before the runtime ends. The driver closes a stream's cursor in a separate task, which panics if the runtime
    /// ends first.
    async fn close(&self) {
        if let Some(client) = self.client.get() {
            client.clone().shutdown().await;
        }
    }

    async fn accesses(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
        read::accesses(self, ids).await
    }

    async fn task_parts(
        &self,
        ids: &[TaskId],
        window: Window,
    ) -> Result<HashMap<TaskId, TaskSnapshot>, StoreError> {
        read::tasks(self, ids, window).await
    }

    async fn dashboards(
        &self,
        org: Option<&OrgId>,
        users: &[UserId],
        limit: usize,
    ) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
        dashboard::dashboards(self, org, users, limit).await
    }

    async fn list(
        &self,
        viewer: &Viewer,
        filter: &TaskFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        super::list::list(self, viewer, filter, cursor, limit).await
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteOutcome, WriteError> {
        write::write(self, request).await
    }

    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, WriteError> {
        deliver::deliver(self, &delivery).await
    }
}
