//! What the server is like, for `taskcast check`.

use mongodb::{
    Database,
    bson::{Bson, Document, Timestamp, doc},
};

use super::{
    MongoStore,
    failure::{answer, store_error},
    prepare,
};
use crate::store::StoreError;

/// What was found; None where the server does not say, or not to this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MongoProbe {
    pub version: String,
    /// The replica set's name; None: a standalone server, or a mongos.
    pub replica_set: Option<String>,
    /// Whether pre- and post-images are on; None: the collection does not exist yet.
    pub images: Option<bool>,
    /// How far back the oplog reaches: how long a node may be away without a new epoch.
    pub oplog_window_secs: Option<u64>,
    /// What commit-to-client latency is bounded below by.
    pub journal_commit_interval_ms: Option<u64>,
}

pub(super) async fn probe(store: &MongoStore) -> Result<MongoProbe, StoreError> {
    let database = store.database().await?;
    let hello = answer(database.run_command(doc! {"hello": 1})).await.map_err(store_error)?;
    let build = answer(database.run_command(doc! {"buildInfo": 1})).await.map_err(store_error)?;
    let client = store.client().await?;
    Ok(MongoProbe {
        version: build.get_str("version").unwrap_or("unknown").to_owned(),
        replica_set: hello.get_str("setName").ok().map(str::to_owned),
        images: prepare::images_of(&database, &store.config.collection).await?,
        oplog_window_secs: oplog_window(&client.database("local")).await,
        journal_commit_interval_ms: journal_commit_interval(&client.database("admin")).await,
    })
}

pub(super) async fn oplog_window(local: &Database) -> Option<u64> {
    let oldest = oplog_end(local, 1).await?;
    let newest = oplog_end(local, -1).await?;
    Some(u64::from(newest.time.saturating_sub(oldest.time)))
}

async fn oplog_end(local: &Database, order: i32) -> Option<Timestamp> {
    let oplog = local.collection::<Document>("oplog.rs");
    let find = oplog.find_one(doc! {}).sort(doc! {"$natural": order});
    let entry = answer(find.projection(doc! {"ts": 1})).await.ok()??;
    entry.get_timestamp("ts").ok()
}

/// The server's default counts where it was not set.
async fn journal_commit_interval(admin: &Database) -> Option<u64> {
    const DEFAULT_MS: u64 = 100;
    let reply = answer(admin.run_command(doc! {"getParameter": 1, "journalCommitInterval": 1})).await.ok()?;
    let set = match reply.get("journalCommitInterval")? {
        Bson::Int32(ms) => u64::try_from(*ms).ok()?,
        Bson::Int64(ms) => u64::try_from(*ms).ok()?,
        Bson::Double(ms) => *ms as u64,
        _ => return None,
    };
    Some(if set == 0 { DEFAULT_MS } else { set })
}
