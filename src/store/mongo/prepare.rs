//! Checks that MongoDB can provide exact history, and creates or enables what is missing: the collection, images and indexes.

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    error::Error,
};

use super::{
    MongoStore,
    config::Images,
    failure::{code, is_unauthorized, store_error, with_timeout},
    indexes,
};
use crate::{
    github::HEAD_DAYS,
    store::{DELIVERY_DAYS, KEY_HOURS, StoreError},
};

pub(super) const STANDALONE: &str = "MongoDB is not a replica set, and a standalone server has no change streams: start \
    mongod with --replSet rs0 and run rs.initiate() once (one member is enough)";
const MONGOS: &str = "MONGODB_URI points to a mongos, but taskcast needs one replica set: events of \
    several shards have no exact order. Use the URI of the replica set that holds the tasks";
const MIN_MAJOR_VERSION: i64 = 6;
/// The number of attempts. Nodes that start together may create the collection at the same moment.
const MAX_ATTEMPTS: u32 = 3;
const NAMESPACE_EXISTS: i32 = 48;
const NAMESPACE_NOT_FOUND: i32 = 26;
/// FailedToParse, InvalidOptions, CommandNotSupported, an unknown field: this MongoDB does not support images.
const NO_SUCH_OPTION: [i32; 4] = [9, 72, 115, 40415];

pub(super) async fn prepare(store: &MongoStore) -> Result<(), StoreError> {
    let database = store.database().await?;
    check_server(&database).await?;
    ensure_images(store).await?;
    indexes::ensure(store, &database).await?;
    if store.config.webhooks {
        for (name, index) in github_indexes(store) {
            indexes::create(&database, &name, index).await?;
        }
    }
    if store.config.task_writes {
        indexes::create(&database, &store.config.keys(), expiring(KEY_HOURS)).await?;
    }
    Ok(())
}

/// Also called after the collection was dropped, because Mongoose creates the new one without images.
pub(super) async fn ensure_images(store: &MongoStore) -> Result<(), StoreError> {
    let (database, name) = (store.database().await?, store.config.collection.as_str());
    for _ in 0..MAX_ATTEMPTS {
        if ensure_images_once(store, &database, name).await? {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable("other programs are creating and dropping the collection now".to_owned()))
}

/// Returns `false` if another node has just created the collection. The caller then checks the collection again.
async fn ensure_images_once(store: &MongoStore, database: &Database, name: &str) -> Result<bool, StoreError> {
    match images_of(database, name).await? {
        Some(true) => Ok(true),
        Some(false) if store.config.images == Images::Require => Err(StoreError::Unusable(format!(
            "exact history needs pre- and post-images on the collection {name}. With MONGODB_IMAGES=require, \
             taskcast does not switch them on. Run: {}",
            enable_images_command(database, name)
        ))),
        Some(false) => {
            tracing::info!(collection = name, "switching pre- and post-images on");
            enable_images(database, name).await
        }
        None => create(database, name).await,
    }
}

/// Returns whether images are on. `None` means that the collection does not exist.
pub(super) async fn images_of(database: &Database, name: &str) -> Result<Option<bool>, StoreError> {
    let Some(options) = options_of(database, name).await? else { return Ok(None) };
    let images = options.get_document("changeStreamPreAndPostImages");
    Ok(Some(images.and_then(|images| images.get_bool("enabled")).unwrap_or(false)))
}

/// The options of the collection. `None` means that the collection does not exist.
pub(super) async fn options_of(database: &Database, name: &str) -> Result<Option<Document>, StoreError> {
    let command = doc! {"listCollections": 1, "filter": {"name": name}};
    let reply = with_timeout(database.run_command(command)).await.map_err(|error| {
        missing_privilege(&error, "listCollections on the database", "read")
            .unwrap_or_else(|| store_error(error))
    })?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let Some(info) = batch.ok().and_then(|batch| batch.first()).and_then(Bson::as_document) else {
        return Ok(None);
    };
    match info.get_str("type") {
        Ok("collection") | Err(_) => Ok(Some(info.get_document("options").cloned().unwrap_or_default())),
        Ok(kind) => Err(StoreError::Unusable(format!(
            "MONGODB_TASKS_COLLECTION names {name}, which is a {kind}: tasks must be in an ordinary collection"
        ))),
    }
}

async fn check_server(database: &Database) -> Result<(), StoreError> {
    let hello = with_timeout(database.run_command(doc! {"hello": 1})).await.map_err(store_error)?;
    if matches!(hello.get_str("msg"), Ok("isdbgrid")) {
        return Err(StoreError::Unusable(MONGOS.to_owned()));
    }
    let build = with_timeout(database.run_command(doc! {"buildInfo": 1})).await.map_err(store_error)?;
    let version = build.get_str("version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<i64>().ok());
    if major.is_some_and(|major| major < MIN_MAJOR_VERSION) {
        return Err(StoreError::Unusable(format!(
            "MongoDB {version} is too old: taskcast needs 6.0 or newer, for pre- and post-images in change streams"
        )));
    }
    if is_standalone(&hello) {
        return Err(StoreError::Unusable(STANDALONE.to_owned()));
    }
    if hello.get_str("setName").is_err() {
        return Err(StoreError::Unavailable(
            "the replica set is not initiated yet: run rs.initiate()".to_owned(),
        ));
    }
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        return Err(StoreError::Unavailable(
            "the server that MONGODB_URI names is not the primary".to_owned(),
        ));
    }
    Ok(())
}

/// Returns whether this answer to `hello` comes from a server that is not a member of a replica set and that is not waiting to become one.
pub(super) fn is_standalone(hello: &Document) -> bool {
    hello.get_str("setName").is_err() && !hello.get_bool("isreplicaset").unwrap_or(false)
}

/// Returns the same as [`ensure_images_once`].
async fn enable_images(database: &Database, name: &str) -> Result<bool, StoreError> {
    let command = doc! {"collMod": name, "changeStreamPreAndPostImages": {"enabled": true}};
    match with_timeout(database.run_command(command)).await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(NAMESPACE_NOT_FOUND) => create(database, name).await,
        Err(error) if is_unauthorized(&error) => Err(StoreError::Denied(format!(
            "exact history needs pre- and post-images on the collection {name}, and the user of MONGODB_URI lacks \
             the privilege collMod (role dbAdmin) to switch them on. Grant it, or run: {}",
            enable_images_command(database, name)
        ))),
        Err(error) => Err(images_error(error)),
    }
}

fn images_error(error: Error) -> StoreError {
    if code(&error).is_some_and(|code| NO_SUCH_OPTION.contains(&code)) {
        return StoreError::Unusable(format!(
            "MongoDB refuses to switch pre- and post-images on; is its featureCompatibilityVersion below 6.0? {error}"
        ));
    }
    store_error(error)
}

/// Returns the same as [`ensure_images_once`].
async fn create(database: &Database, name: &str) -> Result<bool, StoreError> {
    let command = doc! {"create": name, "changeStreamPreAndPostImages": {"enabled": true}};
    match with_timeout(database.run_command(command)).await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(NAMESPACE_EXISTS) => Ok(false),
        Err(error) => Err(missing_privilege(&error, "createCollection on the database", "readWrite")
            .unwrap_or_else(|| images_error(error))),
    }
}

/// The indexes of the two collections for GitHub's deliveries. MongoDB creates a collection together with its first index.
fn github_indexes(store: &MongoStore) -> [(String, Document); 3] {
    [
        (store.config.deliveries(), expiring(24 * DELIVERY_DAYS)),
        (store.config.facts(), expiring(24 * HEAD_DAYS)),
        (store.config.facts(), doc! {"key": {"keys": 1}, "name": "keys_1"}),
    ]
}

/// An index by which MongoDB removes a document this many hours after its `at`.
fn expiring(hours: u64) -> Document {
    let seconds = i64::try_from(hours * 60 * 60).unwrap_or(i64::MAX);
    doc! {"key": {"at": 1}, "name": "at_1", "expireAfterSeconds": seconds}
}

fn enable_images_command(database: &Database, name: &str) -> String {
    format!(
        "db.getSiblingDB({:?}).runCommand({{collMod: {name:?}, changeStreamPreAndPostImages: {{enabled: true}}}})",
        database.name()
    )
}

pub(super) fn missing_privilege(error: &Error, privilege: &str, role: &str) -> Option<StoreError> {
    is_unauthorized(error).then(|| {
        StoreError::Denied(format!(
            "the user of MONGODB_URI lacks the privilege {privilege} (the role {role} has it)"
        ))
    })
}
