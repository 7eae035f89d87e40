//! Collects facts about the MongoDB server for `taskcast check`.

use mongodb::{
    Database,
    bson::{self, Bson, Document, doc},
};

use super::{
    MongoStore,
    failure::{store_error, with_timeout},
    indexes, prepare, privileges,
};
use crate::{
    store::StoreError,
    task::{ClockReading, Timestamp},
};

/// Below both limits, the oplog is too new for an estimate of its future window.
const YOUNG_SECS: u64 = 60;
const YOUNG_FILL: f64 = 0.5;

/// The result of the probe. `None` means that MongoDB does not report the value, or not to this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MongoProbe {
    pub version: String,
    /// The replica set's name. `None` means a standalone server or a mongos.
    pub replica_set: Option<String>,
    /// `true` means that pre- and post-images are on. `None` means that the collection does not exist yet, or that the user may not read
    /// its options.
    pub images: Option<bool>,
    /// The locale of the collection's default collation. `None` means that it compares byte by byte, or that no collection exists yet.
    pub collation: Option<String>,
    /// How far back the oplog reaches. A node can be away for this long without a new epoch.
    pub oplog_window_secs: Option<u64>,
    /// How far back a full oplog will reach at the current write rate. `None` means that the oplog is too new for an estimate.
    pub full_oplog_window_secs: Option<u64>,
    /// The lower bound of the latency from commit to client.
    pub journal_commit_interval_ms: Option<u64>,
    pub clock: Option<ClockReading>,
    /// The missing privileges of the user, as `action on database.collection`. `None` means that MongoDB requires no user, or does not
    /// report the privileges.
    pub missing_privileges: Option<Vec<String>>,
}

pub(super) async fn probe(store: &MongoStore, writes: bool) -> Result<MongoProbe, StoreError> {
    let database = store.database().await?;
    let hello = with_timeout(database.run_command(doc! {"hello": 1})).await.map_err(store_error)?;
    let build = with_timeout(database.run_command(doc! {"buildInfo": 1})).await.map_err(store_error)?;
    let client = store.client().await?;
    let clock = clock(&database).await;
    let granted = privileges::granted(&database).await;
    let images = match prepare::images_of(&database, &store.config.collection).await {
        Err(StoreError::Denied(_)) if granted.is_some() => None,
        images => images?,
    };
    let collation = indexes::collation_of(&database, &store.config.collection).await.ok().flatten();
    let missing_privileges = match granted {
        Some(granted) => Some(privileges::missing(store, &database, &granted, images, writes).await),
        None => None,
    };
    let oplog_window_secs = oplog_window(&client.database("local")).await;
    let fill = oplog_fill(&client.database("local")).await;
    Ok(MongoProbe {
        version: build.get_str("version").unwrap_or("unknown").to_owned(),
        replica_set: hello.get_str("setName").ok().map(str::to_owned),
        images,
        collation,
        oplog_window_secs,
        full_oplog_window_secs: oplog_window_secs.zip(fill).and_then(|(secs, fill)| full_window(secs, fill)),
        clock,
        missing_privileges,
        journal_commit_interval_ms: journal_commit_interval(&client.database("admin")).await,
    })
}

pub(super) async fn oplog_window(local: &Database) -> Option<u64> {
    let oldest = oplog_end(local, 1).await?;
    let newest = oplog_end(local, -1).await?;
    Some(u64::from(newest.time.saturating_sub(oldest.time)))
}

async fn oplog_end(local: &Database, order: i32) -> Option<bson::Timestamp> {
    let oplog = local.collection::<Document>("oplog.rs");
    let find = oplog.find_one(doc! {}).sort(doc! {"$natural": order});
    let entry = with_timeout(find.projection(doc! {"ts": 1})).await.ok()??;
    entry.get_timestamp("ts").ok()
}

fn full_window(window_secs: u64, fill: f64) -> Option<u64> {
    let is_young = window_secs < YOUNG_SECS && fill < YOUNG_FILL;
    (!is_young).then(|| (window_secs as f64 / fill.min(1.0)) as u64)
}

/// Returns the used part of the oplog's maximum size. The result is never zero, because [`full_window`] divides by it.
async fn oplog_fill(local: &Database) -> Option<f64> {
    let oplog = local.collection::<Document>("oplog.rs");
    let stages = [
        doc! {"$collStats": {"storageStats": {}}},
        doc! {"$project": {"size": "$storageStats.size", "max": "$storageStats.maxSize"}},
    ];
    let mut found = with_timeout(oplog.aggregate(stages)).await.ok()?;
    let stats = found.advance().await.ok()?.then(|| found.deserialize_current().ok())??;
    let bytes = |name: &str| {
        stats
            .get_i64(name)
            .map(|n| n as f64)
            .or_else(|_| stats.get_i32(name).map(f64::from))
            .or_else(|_| stats.get_f64(name))
            .ok()
    };
    let (size, max) = (bytes("size")?, bytes("max")?);
    (max > 0.0).then(|| (size / max).max(1e-9))
}

/// Reads MongoDB's clock several times. The reading with the fastest answer is the most accurate one.
async fn clock(database: &Database) -> Option<ClockReading> {
    let mut best: Option<ClockReading> = None;
    for _ in 0..3 {
        let before = Timestamp::now();
        let hello = with_timeout(database.run_command(doc! {"hello": 1})).await.ok()?;
        let remote = Timestamp::from_millis(hello.get_datetime("localTime").ok()?.timestamp_millis())?;
        let reading = ClockReading { before, remote, after: Timestamp::now() };
        let took = |reading: &ClockReading| reading.after.millis() - reading.before.millis();
        best = best.filter(|best| took(best) <= took(&reading)).or(Some(reading));
    }
    best
}

/// MongoDB returns 0 if the parameter is not set. This function then returns MongoDB's default.
async fn journal_commit_interval(admin: &Database) -> Option<u64> {
    const DEFAULT_MS: u64 = 100;
    let reply =
        with_timeout(admin.run_command(doc! {"getParameter": 1, "journalCommitInterval": 1})).await.ok()?;
    let set = match reply.get("journalCommitInterval")? {
        Bson::Int32(ms) => u64::try_from(*ms).ok()?,
        Bson::Int64(ms) => u64::try_from(*ms).ok()?,
        Bson::Double(ms) => *ms as u64,
        _ => return None,
    };
    Some(if set == 0 { DEFAULT_MS } else { set })
}

#[cfg(test)]
mod tests {
    use super::full_window;

    #[test]
    fn the_future_oplog_window_follows_from_the_used_part() {
        assert_eq!(full_window(3600, 0.25), Some(14_400));
        assert_eq!(full_window(30, 0.9), Some(33), "the oplog is nearly full");
        assert_eq!(full_window(90_000, 1.2), Some(90_000));
        assert_eq!(full_window(2, 0.01), None);
    }
}
