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
    failure::{store_error, with_timeout},
};
use crate::{
    github::{Delivery, Fact, FactRecord, KnownFacts},
    store::StoreError,
    task::Timestamp,
};

const DUPLICATE_KEY: i32 = 11000;
/// The maximum number of facts that one query returns. More facts about one delivery indicate an error.
const MAX_FACTS_PER_QUERY: i64 = 1000;

/// Stores the facts that the delivery contains. Returns the delivery with a search that uses all known facts.
pub(super) async fn store_facts_and_extend_search(
    store: &MongoStore,
    delivery: &Delivery,
) -> Result<Delivery, StoreError> {
    let mut known = KnownFacts::default();
    loop {
        let keys = delivery.missing_keys(&known);
        if keys.is_empty() {
            break;
        }
        let facts = find(store, &keys).await?;
        known.add(keys, facts);
    }
    let new_facts = delivery.new_facts(&known, Timestamp::now());
    if !new_facts.is_empty() {
        insert(store, &new_facts).await?;
    }
    known.add_facts(new_facts.into_iter().map(|record| record.fact));
    Ok(delivery.with_known_facts(&known))
}

async fn find(store: &MongoStore, keys: &[String]) -> Result<Vec<Fact>, StoreError> {
    let facts = store.facts().await?;
    let find = facts.find(doc! {"keys": {"$in": keys}}).limit(MAX_FACTS_PER_QUERY);
    let found: Vec<RawDocumentBuf> =
        with_timeout(async { find.await?.try_collect().await }).await.map_err(store_error)?;
    let read = |document: RawDocumentBuf| {
        let fact = bson_json::to_json(document.get_document("fact").ok()?);
        serde_json::from_value(fact.into()).ok()
    };
    Ok(found.into_iter().filter_map(read).collect())
}

async fn insert(store: &MongoStore, new_facts: &[FactRecord]) -> Result<(), StoreError> {
    let documents: Vec<RawDocumentBuf> = new_facts
        .iter()
        .map(|record| RawDocumentBuf::try_from(&document(record)).map_err(|error| store_error(error.into())))
        .collect::<Result<_, _>>()?;
    match with_timeout(store.facts().await?.insert_many(documents).ordered(false)).await {
        Err(error) if !only_duplicates(&error) => Err(store_error(error)),
        _ => Ok(()),
    }
}

fn document(record: &FactRecord) -> Document {
    let fact = serde_json::to_value(&record.fact).map_or(Bson::Null, bson_json::to_bson);
    let mut document = doc! {"_id": &record.id, "keys": &record.keys, "fact": fact};
    if record.expires {
        document.insert("at", DateTime::now());
    }
    document
}

fn only_duplicates(error: &Error) -> bool {
    let ErrorKind::InsertMany(failure) = error.kind.as_ref() else { return false };
    failure.write_concern_error.is_none()
        && failure.write_errors.iter().flatten().all(|error| error.code == DUPLICATE_KEY)
}
