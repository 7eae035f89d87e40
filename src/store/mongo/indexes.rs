//! The indexes that reads need. Each compares texts byte by byte, as every operation on tasks does: an index in another
//! collation can't be used for texts.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    error::Error,
    options::Hint,
};

use super::{
    MongoStore,
    failure::{answer, answer_within, code, store_error},
    prepare::{lacking, options_of},
};
use crate::{seldom::seldom, store::StoreError, task::Field};

/// IndexOptionsConflict, IndexKeySpecsConflict: an index that serves as well is already there.
const INDEX_CONFLICT: [i32; 2] = [85, 86];
/// CannotIndexParallelArrays, CannotCreateIndex: a document has arrays in two of the fields, or the collection has as many indexes as
/// it may have.
const NO_PLACE: [i32; 2] = [171, 67];
/// What MongoDB says of a hint at an index that is not there.
const BAD_VALUE: i32 = 2;
/// The server needs its time for the index of a large collection.
const INDEX_PATIENCE: Duration = Duration::from_secs(1800);

/// An index that lists are read in the order of. Those with a status also have all that counts are read from.
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

    /// The index of the same tasks that has the status too.
    pub(super) fn of_one_status(self) -> Self {
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
        if self == self.of_one_status() {
            key.insert("status", 1);
        }
        key.extend(doc! {"createdAt": -1, "_id": -1});
        key
    }
}

/// The names of the list indexes in the collection. taskcast tells MongoDB which one to use. MongoDB's own choice is made while there are few
/// tasks of a kind, when any index is as good as any other, and it is kept when there are many.
#[derive(Debug, Default)]
pub(super) struct Hints(RwLock<HashMap<ListIndex, String>>);

impl Hints {
    pub(super) fn of(&self, index: ListIndex) -> Option<Hint> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&index).cloned().map(Hint::Name)
    }

    /// Whether a request failed because somebody has dropped the index. Then the request is to be sent again without the hint, and
    /// MongoDB chooses by itself from now on.
    pub(super) fn is_gone(&self, hint: &mut Option<Hint>, error: &Error) -> bool {
        let is_gone = code(error) == Some(BAD_VALUE) && hint.take().is_some();
        if is_gone {
            seldom!(
                warn,
                "an index that lists are read with is gone; taskcast makes it again at its next start"
            );
            self.set(HashMap::new());
        }
        is_gone
    }

    fn set(&self, names: HashMap<ListIndex, String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

/// Makes what is missing. An index of somebody else that serves as well is left alone, and so is one in another collation.
pub(super) async fn ensure(store: &MongoStore, database: &Database) -> Result<(), StoreError> {
    let name = &store.config.collection;
    for index in missing(store, database).await? {
        tracing::info!(
            index = index.get_str("name").unwrap_or_default(),
            "making an index: with a million tasks, MongoDB needs some seconds for it"
        );
        match make(database, name, &index).await {
            Err(error) if code(&error).is_some_and(|code| NO_PLACE.contains(&code)) => {
                tracing::warn!(%error, "an index can't be made: reads are slower without it, see docs/troubleshooting.md")
            }
            made => made.map_err(|error| not_made(database, name, &index, error))?,
        }
    }
    let there = existing(database, name).await?;
    let named = |index: ListIndex| {
        let key = index.key();
        let serves = there.iter().find(|one| one.is_whole && one.key == key)?;
        Some((index, serves.name.clone()))
    };
    store.hints.set(ListIndex::ALL.into_iter().filter_map(named).collect());
    Ok(())
}

/// Whether [`ensure`] would make one. False also where that can't be told.
pub(super) async fn are_missing(store: &MongoStore, database: &Database) -> bool {
    missing(store, database).await.is_ok_and(|missing| !missing.is_empty())
}

async fn missing(store: &MongoStore, database: &Database) -> Result<Vec<Document>, StoreError> {
    let name = &store.config.collection;
    let collation = collation_of(database, name).await?;
    let there = existing(database, name).await?;
    let wanted = wanted(collation.is_some()).chain(store.config.webhooks.then(found_by_github));
    let lists = ListIndex::ALL.map(|index| named(index.key()));
    let has = |index: &Document, serves: fn(&Existing) -> bool| {
        index.get_document("key").is_ok_and(|key| there.iter().any(|one| serves(one) && one.key == *key))
    };
    let wanted = wanted.filter(|index| !has(index, |_| true));
    let missing = wanted.chain(lists.into_iter().filter(|index| !has(index, |one| one.is_whole)));
    let named = missing.map(|mut index| {
        if collation.is_some()
            && let Ok(name) = index.get_str("name")
        {
            // The collection may have one of the same name in its own collation.
            let name = format!("{name}_simple");
            index.insert("name", name);
        }
        index.insert("collation", doc! {"locale": "simple"});
        index
    });
    Ok(named.collect())
}

/// The locale of the collection's default collation; None: it compares byte by byte.
pub(super) async fn collation_of(database: &Database, name: &str) -> Result<Option<String>, StoreError> {
    let options = options_of(database, name).await?.unwrap_or_default();
    let locale = options.get_document("collation").and_then(|collation| collation.get_str("locale"));
    Ok(locale.ok().filter(|locale| *locale != "simple").map(str::to_owned))
}

pub(super) async fn create(database: &Database, name: &str, index: Document) -> Result<(), StoreError> {
    make(database, name, &index).await.map_err(|error| not_made(database, name, &index, error))
}

async fn make(database: &Database, name: &str, index: &Document) -> Result<(), Error> {
    let request = database.run_command(command(name, index));
    match answer_within(INDEX_PATIENCE, request).await.map(drop) {
        Err(error) if code(&error).is_some_and(|code| INDEX_CONFLICT.contains(&code)) => {
            tracing::info!(%error, "another index serves already");
            Ok(())
        }
        made => made,
    }
}

fn not_made(database: &Database, name: &str, index: &Document, error: Error) -> StoreError {
    let privilege = format!(
        "createIndex on {name} (or create the index {}: db.getSiblingDB({:?}).runCommand({}))",
        index.get_str("name").unwrap_or_default(),
        database.name(),
        command(name, index),
    );
    lacking(&error, &privilege, "readWrite").unwrap_or_else(|| store_error(error))
}

fn command(name: &str, index: &Document) -> Document {
    doc! {"createIndexes": name, "indexes": [index.clone()]}
}

struct Existing {
    key: Document,
    name: String,
    /// It has every document, and may be used.
    is_whole: bool,
}

/// The indexes that compare byte by byte. One that is still being made is not there yet: whoever makes it too waits for it.
async fn existing(database: &Database, name: &str) -> Result<Vec<Existing>, StoreError> {
    // So that one which is still being made is told apart: it has no key of its own then, but one in a `spec`.
    let command = doc! {"listIndexes": name, "cursor": {"batchSize": 1000}, "includeBuildUUIDs": true};
    let reply = answer(database.run_command(command)).await.map_err(|error| {
        lacking(&error, &format!("listIndexes on {name}"), "read").unwrap_or_else(|| store_error(error))
    })?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let indexes = batch.into_iter().flatten().filter_map(Bson::as_document);
    let simple = indexes.filter(|index| !index.contains_key("collation"));
    let read = |index: &Document| {
        let is_on = |option: &str| index.get_bool(option).unwrap_or(false);
        let is_part = is_on("sparse") || is_on("hidden") || index.contains_key("partialFilterExpression");
        let key = whole_numbers(index.get_document("key").ok()?);
        Some(Existing { key, name: index.get_str("name").ok()?.to_owned(), is_whole: !is_part })
    };
    Ok(simple.filter_map(read).collect())
}

/// The shell and Mongoose may have written a direction as a double or a long.
fn whole_numbers(key: &Document) -> Document {
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

/// `collated`: the collection's own index of `_id` is in another collation, so that it can't be used for texts.
fn wanted(collated: bool) -> impl Iterator<Item = Document> {
    let by_id = collated.then(|| doc! {"_id": 1, "createdAt": 1});
    let keys =
        [doc! {"status": 1}, doc! {"createdBy": 1}, doc! {"createdAt": -1}, doc! {"events.eventType": 1}];
    by_id.into_iter().chain(keys).map(named)
}

fn named(key: Document) -> Document {
    let name: Vec<String> = key.iter().map(|(field, order)| format!("{field}_{order}")).collect();
    doc! {"key": key, "name": name.join("_")}
}

/// Numbers, links and branches under all their names: one index over nine fields that most tasks lack, of which a
/// search names one at a time.
fn found_by_github() -> Document {
    let fields = [Field::PrNumber, Field::PrUrl, Field::IssueNumber, Field::IssueUrl, Field::GithubBranch];
    let names = fields.iter().flat_map(|field| field.document_names());
    let projection: Document = names.map(|name| ((*name).to_owned(), Bson::Int32(1))).collect();
    doc! {"key": {"$**": 1}, "name": "found_by_github", "wildcardProjection": projection}
}
