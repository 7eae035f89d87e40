//! Stores and finds the facts that taskcast learns from GitHub's deliveries, in a separate collection.
//!
//! A fact is inserted once and never changed, so no transaction is needed: a second insert of the same fact contains nothing new.

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
    error::{Error, ErrorKind},
};

use super::{
    MongoStore, bson_json,
    failure::{answer, store_error},
};
use crate::{
    github::{Delivery, Fact, Known, Lesson},
    store::StoreError,
    task::Timestamp,
};

const DUPLICATE_KEY: i32 = 11000;
/// The maximum number of facts that one query returns. More facts about one delivery indicate an error.
const MOST: i64 = 1000;

/// Stores the facts that the delivery contains. Returns the delivery with a search that uses all known facts.
pub(super) async fn informed(store: &MongoStore, delivery: &Delivery) -> Result<Delivery, StoreError> {
    let mut known = Known::default();
    loop {
        let keys = delivery.unasked(&known);
        if keys.is_empty() {
            break;
        }
        let facts = find(store, &keys).await?;
        known.add(keys, facts);
    }
    let lessons = delivery.lessons(&known, Timestamp::now());
    if !lessons.is_empty() {
        insert(store, &lessons).await?;
    }
    known.learn(lessons.into_iter().map(|lesson| lesson.fact));
    Ok(delivery.informed(&known))
}

async fn find(store: &MongoStore, keys: &[String]) -> Result<Vec<Fact>, StoreError> {
    let facts = store.facts().await?;
    let find = facts.find(doc! {"keys": {"$in": keys}}).limit(MOST);
    let found: Vec<RawDocumentBuf> =
        answer(async { find.await?.try_collect().await }).await.map_err(store_error)?;
    let read = |document: RawDocumentBuf| {
        let fact = bson_json::to_json(document.get_document("fact").ok()?);
        serde_json::from_value(fact.into()).ok()
    };
    Ok(found.into_iter().filter_map(read).collect())
}

async fn insert(store: &MongoStore, lessons: &[Lesson]) -> Result<(), StoreError> {
    let documents: Vec<RawDocumentBuf> = lessons
        .iter()
        .map(|lesson| RawDocumentBuf::try_from(&document(lesson)).map_err(|error| store_error(error.into())))
        .collect::<Result<_, _>>()?;
    match answer(store.facts().await?.insert_many(documents).ordered(false)).await {
        Err(error) if !only_duplicates(&error) => Err(store_error(error)),
        _ => Ok(()),
    }
}

fn document(lesson: &Lesson) -> Document {
    let fact = serde_json::to_value(&lesson.fact).map_or(Bson::Null, bson_json::to_bson);
    let mut document = doc! {"_id": &lesson.id, "keys": &lesson.keys, "fact": fact};
    if lesson.expires {
        document.insert("at", DateTime::now());
    }
    document
}

fn only_duplicates(error: &Error) -> bool {
    let ErrorKind::InsertMany(failure) = error.kind.as_ref() else { return false };
    failure.write_concern_error.is_none()
        && failure.write_errors.iter().flatten().all(|error| error.code == DUPLICATE_KEY)
}
