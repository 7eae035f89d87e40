//! The indexes that reads need. Each compares texts byte by byte, as every operation on tasks does: an index in another
//! collation can't be used for texts.

use std::time::Duration;

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};

use super::{
    MongoStore,
    failure::{answer, answer_within, code, store_error},
    prepare::{lacking, options_of},
};
use crate::{store::StoreError, task::Field};

/// IndexOptionsConflict, IndexKeySpecsConflict: an index that serves as well is already there.
const INDEX_CONFLICT: [i32; 2] = [85, 86];
/// The server needs its time for the index of a large collection.
const INDEX_PATIENCE: Duration = Duration::from_secs(1800);

/// Makes what is missing. An index of somebody else that serves as well is left alone, and so is one in another collation.
pub(super) async fn ensure(store: &MongoStore, database: &Database) -> Result<(), StoreError> {
    let name = &store.config.collection;
    for index in missing(store, database).await? {
        create(database, name, index).await?;
    }
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
    let missing = wanted.filter(|index| !index.get_document("key").is_ok_and(|key| there.contains(key)));
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
    let index_name = index.get_str("name").unwrap_or_default().to_owned();
    let command = doc! {"createIndexes": name, "indexes": [index.clone()]};
    match answer_within(INDEX_PATIENCE, database.run_command(command.clone())).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error).is_some_and(|code| INDEX_CONFLICT.contains(&code)) => {
            tracing::info!(%error, "another index serves already");
            Ok(())
        }
        Err(error) => {
            let privilege = format!(
                "createIndex on {name} (or create the index {index_name}: db.getSiblingDB({:?}).runCommand({command}))",
                database.name()
            );
            Err(lacking(&error, &privilege, "readWrite").unwrap_or_else(|| store_error(error)))
        }
    }
}

/// The keys of the indexes that compare byte by byte.
async fn existing(database: &Database, name: &str) -> Result<Vec<Document>, StoreError> {
    let command = doc! {"listIndexes": name, "cursor": {"batchSize": 1000}};
    let reply = answer(database.run_command(command)).await.map_err(|error| {
        lacking(&error, &format!("listIndexes on {name}"), "read").unwrap_or_else(|| store_error(error))
    })?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let indexes = batch.into_iter().flatten().filter_map(Bson::as_document);
    let simple = indexes.filter(|index| !index.contains_key("collation"));
    Ok(simple.filter_map(|index| index.get_document("key").ok()).map(whole_numbers).collect())
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
    let keys = [
        doc! {"status": 1},
        doc! {"createdBy": 1},
        doc! {"createdAt": -1},
        doc! {"events.eventType": 1},
        doc! {"orgId": 1, "createdAt": -1, "_id": -1},
        doc! {"createdBy": 1, "createdAt": -1, "_id": -1},
    ];
    by_id.into_iter().chain(keys).map(|key| {
        let name: Vec<String> = key.iter().map(|(field, order)| format!("{field}_{order}")).collect();
        doc! {"key": key, "name": name.join("_")}
    })
}

/// Numbers, links and branches under all their names: one index over nine fields that most tasks lack, of which a
/// search names one at a time.
fn found_by_github() -> Document {
    let fields = [Field::PrNumber, Field::PrUrl, Field::IssueNumber, Field::IssueUrl, Field::GithubBranch];
    let names = fields.iter().flat_map(|field| field.document_names());
    let projection: Document = names.map(|name| ((*name).to_owned(), Bson::Int32(1))).collect();
    doc! {"key": {"$**": 1}, "name": "found_by_github", "wildcardProjection": projection}
}
