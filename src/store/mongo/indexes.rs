//! Creates the indexes that reads need, and knows their names. Each index compares texts byte by byte, as every operation on tasks does.
//! MongoDB can't use an index with another collation for texts.

use std::{collections::HashMap, time::Duration};

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    error::Error,
    options::Hint,
};
use parking_lot::RwLock;

use super::{
    MongoStore,
    failure::{code, store_error, with_timeout, with_timeout_of},
    prepare::{missing_privilege, options_of},
};
use crate::{rate_limited_log::rate_limited_log, store::StoreError, task::Field};

/// IndexOptionsConflict, IndexKeySpecsConflict: an index that serves the same purpose already exists.
const INDEX_CONFLICT: [i32; 2] = [85, 86];
/// CannotIndexParallelArrays, CannotCreateIndex: a document has arrays in two of the fields, or the collection has the maximum number of
/// indexes.
const INDEX_IMPOSSIBLE: [i32; 2] = [171, 67];
/// MongoDB's error for a hint that names an index that does not exist.
const BAD_VALUE: i32 = 2;
/// The timeout for the creation of one index. A large collection needs a long time.
const INDEX_TIMEOUT: Duration = Duration::from_secs(1800);

/// An index in the order of lists. The indexes with a status also contain all fields that counts need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ListIndex {
    Org,
    OrgStatus,
    Creator,
    CreatorStatus,
    CreatorInOrg,
    CreatorInOrgStatus,
}

impl ListIndex {
    const ALL: [Self; 6] = [
        Self::Org,
        Self::OrgStatus,
        Self::Creator,
        Self::CreatorStatus,
        Self::CreatorInOrg,
        Self::CreatorInOrgStatus,
    ];

    /// The index of the same tasks that also contains the status.
    pub(super) fn with_status(self) -> Self {
        match self {
            Self::Org | Self::OrgStatus => Self::OrgStatus,
            Self::Creator | Self::CreatorStatus => Self::CreatorStatus,
            Self::CreatorInOrg | Self::CreatorInOrgStatus => Self::CreatorInOrgStatus,
        }
    }

    fn key(self) -> Document {
        let mut key = match self {
            Self::Org | Self::OrgStatus => doc! {"orgId": 1, "isPrivate": 1},
            Self::Creator | Self::CreatorStatus => doc! {"createdBy": 1},
            Self::CreatorInOrg | Self::CreatorInOrgStatus => {
                doc! {"createdBy": 1, "orgId": 1, "isPrivate": 1}
            }
        };
        if self == self.with_status() {
            key.insert("status", 1);
        }
        key.extend(doc! {"createdAt": -1, "_id": -1});
        key
    }
}

/// The names of the list indexes in the collection. taskcast tells MongoDB which index to use. MongoDB would choose an index while there
/// are few tasks of a kind, when all indexes are equally fast. It would keep this choice when there are many.
#[derive(Debug, Default)]
pub(super) struct Hints(RwLock<HashMap<ListIndex, String>>);

impl Hints {
    pub(super) fn of(&self, index: ListIndex) -> Option<Hint> {
        self.0.read().get(&index).cloned().map(Hint::Name)
    }

    /// Returns whether a request failed because the index of its hint was dropped. The caller then repeats the request without the hint,
    /// and MongoDB chooses the indexes of later requests.
    pub(super) fn is_gone(&self, hint: &mut Option<Hint>, error: &Error) -> bool {
        let is_gone = code(error) == Some(BAD_VALUE) && hint.take().is_some();
        if is_gone {
            rate_limited_log!(
                warn,
                "an index for lists or counts was dropped; taskcast creates it again at its next start"
            );
            self.set(HashMap::new());
        }
        is_gone
    }

    fn set(&self, names: HashMap<ListIndex, String>) {
        *self.0.write() = names;
    }
}

/// Creates the missing indexes. This function does not change other indexes that serve the same purpose, or indexes with another collation.
pub(super) async fn ensure(store: &MongoStore, database: &Database) -> Result<(), StoreError> {
    let name = &store.config.collection;
    for index in missing(store, database).await? {
        tracing::info!(
            index = index.get_str("name").unwrap_or_default(),
            "making an index: with a million tasks, MongoDB needs some seconds for it"
        );
        match create_index(database, name, &index).await {
            Err(error) if code(&error).is_some_and(|code| INDEX_IMPOSSIBLE.contains(&code)) => {
                tracing::warn!(%error, "an index can't be made: reads are slower without it, see docs/troubleshooting.md")
            }
            result => result.map_err(|error| creation_error(database, name, &index, error))?,
        }
    }
    let existing_indexes = existing(database, name).await?;
    let named = |index: ListIndex| {
        let key = index.key();
        let serves = existing_indexes.iter().find(|index| index.is_complete && index.key == key)?;
        Some((index, serves.name.clone()))
    };
    store.hints.set(ListIndex::ALL.into_iter().filter_map(named).collect());
    Ok(())
}

/// Returns whether [`ensure`] would create an index. `false` can also mean that this is not known.
pub(super) async fn are_missing(store: &MongoStore, database: &Database) -> bool {
    missing(store, database).await.is_ok_and(|missing| !missing.is_empty())
}

async fn missing(store: &MongoStore, database: &Database) -> Result<Vec<Document>, StoreError> {
    let name = &store.config.collection;
    let collation = collation_of(database, name).await?;
    let existing_indexes = existing(database, name).await?;
    let wanted = wanted(collation.is_some()).chain(store.config.webhooks.then(delivery_index));
    let lists = ListIndex::ALL.map(|index| named(index.key()));
    let has = |index: &Document, serves: fn(&Existing) -> bool| {
        index
            .get_document("key")
            .is_ok_and(|key| existing_indexes.iter().any(|index| serves(index) && index.key == *key))
    };
    let wanted = wanted.filter(|index| !has(index, |_| true));
    let missing = wanted.chain(lists.into_iter().filter(|index| !has(index, |index| index.is_complete)));
    let named = missing.map(|mut index| {
        if collation.is_some()
            && let Ok(name) = index.get_str("name")
        {
            // The collection may have an index of the same name with the collection's collation.
            let name = format!("{name}_simple");
            index.insert("name", name);
        }
        index.insert("collation", doc! {"locale": "simple"});
        index
    });
    Ok(named.collect())
}

/// The locale of the collection's default collation. `None` means that it compares byte by byte.
pub(super) async fn collation_of(database: &Database, name: &str) -> Result<Option<String>, StoreError> {
    let options = options_of(database, name).await?.unwrap_or_default();
    let locale = options.get_document("collation").and_then(|collation| collation.get_str("locale"));
    Ok(locale.ok().filter(|locale| *locale != "simple").map(str::to_owned))
}

pub(super) async fn create(database: &Database, name: &str, index: Document) -> Result<(), StoreError> {
    create_index(database, name, &index).await.map_err(|error| creation_error(database, name, &index, error))
}

async fn create_index(database: &Database, name: &str, index: &Document) -> Result<(), Error> {
    let request = database.run_command(command(name, index));
    match with_timeout_of(INDEX_TIMEOUT, request).await.map(drop) {
        Err(error) if code(&error).is_some_and(|code| INDEX_CONFLICT.contains(&code)) => {
            tracing::info!(%error, "another index already serves the same purpose");
            Ok(())
        }
        result => result,
    }
}

fn creation_error(database: &Database, name: &str, index: &Document, error: Error) -> StoreError {
    let privilege = format!(
        "createIndex on {name} (or create the index {}: db.getSiblingDB({:?}).runCommand({}))",
        index.get_str("name").unwrap_or_default(),
        database.name(),
        command(name, index),
    );
    missing_privilege(&error, &privilege, "readWrite").unwrap_or_else(|| store_error(error))
}

fn command(name: &str, index: &Document) -> Document {
    doc! {"createIndexes": name, "indexes": [index.clone()]}
}

struct Existing {
    key: Document,
    name: String,
    /// The index contains every document and is not hidden.
    is_complete: bool,
}

/// The finished indexes that compare byte by byte. An index that is still being built is left out. A request that creates the same index
/// waits for this build.
async fn existing(database: &Database, name: &str) -> Result<Vec<Existing>, StoreError> {
    // With `includeBuildUUIDs`, an unfinished index has its key only inside a `spec` field, so the code below leaves it out.
    let command = doc! {"listIndexes": name, "cursor": {"batchSize": 1000}, "includeBuildUUIDs": true};
    let reply = with_timeout(database.run_command(command)).await.map_err(|error| {
        missing_privilege(&error, &format!("listIndexes on {name}"), "read")
            .unwrap_or_else(|| store_error(error))
    })?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let indexes = batch.into_iter().flatten().filter_map(Bson::as_document);
    let simple = indexes.filter(|index| !index.contains_key("collation"));
    let read = |index: &Document| {
        let is_set = |option: &str| index.get_bool(option).unwrap_or(false);
        let is_part = is_set("sparse") || is_set("hidden") || index.contains_key("partialFilterExpression");
        let key = with_int32_orders(index.get_document("key").ok()?);
        Some(Existing { key, name: index.get_str("name").ok()?.to_owned(), is_complete: !is_part })
    };
    Ok(simple.filter_map(read).collect())
}

/// The key with 32-bit numbers. The shell and Mongoose may have written a direction as a double or a long.
fn with_int32_orders(key: &Document) -> Document {
    key.iter()
        .map(|(field, order)| {
            let order = match order {
                Bson::Double(order) => Bson::Int32(*order as i32),
                Bson::Int64(order) => Bson::Int32(*order as i32),
                other => other.clone(),
            };
            (field.clone(), order)
        })
        .collect()
}

/// The indexes besides those of lists and deliveries. `has_collation` means that the index of `_id` has another collation, so MongoDB can't use
/// it for texts.
fn wanted(has_collation: bool) -> impl Iterator<Item = Document> {
    let by_id = has_collation.then(|| doc! {"_id": 1, "createdAt": 1});
    let keys =
        [doc! {"status": 1}, doc! {"createdBy": 1}, doc! {"createdAt": -1}, doc! {"events.eventType": 1}];
    by_id.into_iter().chain(keys).map(named)
}

fn named(key: Document) -> Document {
    let name: Vec<String> = key.iter().map(|(field, order)| format!("{field}_{order}")).collect();
    doc! {"key": key, "name": name.join("_")}
}

/// The index for deliveries: numbers, links and branches under all their names. It is one wildcard index over nine fields that most tasks
/// do not have. Each alternative of a search names one of the fields.
fn delivery_index() -> Document {
    let fields = [Field::PrNumber, Field::PrUrl, Field::IssueNumber, Field::IssueUrl, Field::GithubBranch];
    let names = fields.iter().flat_map(|field| field.document_names());
    let projection: Document = names.map(|name| ((*name).to_owned(), Bson::Int32(1))).collect();
    doc! {"key": {"$**": 1}, "name": "found_by_github", "wildcardProjection": projection}
}
