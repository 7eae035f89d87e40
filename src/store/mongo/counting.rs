//! Counts tasks by reading an index alone.
//!
//! MongoDB reads only the index if no filter tests for null or for a type. A filter is therefore an index range that contains all tasks to
//! count. The groups separate the tasks by the deciding values. A missing field may appear as null there.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, Timestamp, doc, oid::ObjectId},
    error::Error,
    options::Hint,
};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::{
    MongoStore,
    failure::{store_error, with_timeout},
    ids::MAX_BINARY,
    indexes::ListIndex,
    read::snapshot,
    select::{SCALARS, exactly, is_usable_text, names},
};
use crate::{
    shrinking_map::ShrinkingMap,
    store::StoreError,
    task::{Counts, OrgId, Status, StatusClass, TaskId, UserId},
};

/// Lets only one request at a time count the tasks of an organisation. The request leaves its result to the waiting requests.
#[derive(Debug)]
pub(super) struct Turns<T>(Mutex<ShrinkingMap<OrgId, Arc<tokio::sync::Mutex<Option<T>>>>>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Turns<T> {
    /// Waits for the turn. The guard contains the result of the previous request, if requests have used the turn or waited for it ever
    /// since.
    pub(super) async fn of(&self, org: &OrgId) -> OwnedMutexGuard<Option<T>> {
        let turn = {
            let mut turns = self.0.lock();
            // Removes the turns that no request holds or waits for.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(org.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// The status classes, indexed by the number that [`class`] returns.
const CLASSES: [StatusClass; 3] = [StatusClass::Active, StatusClass::Completed, StatusClass::Failed];

/// Counts the tasks that everybody in an organisation sees, at one moment.
pub(super) async fn of_org(store: &MongoStore, org: &OrgId, moment: Timestamp) -> Result<Counts, StoreError> {
    let mut session = snapshot(store, Some(moment)).await?;
    let mut counts = Counts::default();
    let named = doc! {"orgId": {"$in": names(org.as_str())}};
    // These ranges contain all values except non-empty texts and ObjectIds: a missing value, null, the empty text, and values that name no
    // organisation.
    let nothing = doc! {"$and": [
        {"orgId": {"$not": {"$gt": ""}}},
        {"orgId": {"$not": {"$gte": ObjectId::from_bytes([0; 12])}}},
    ]};
    let is_default = store.config.default_org.0.as_ref() == Some(org);
    for range in [named].into_iter().chain(is_default.then_some(nothing)) {
        let of = doc! {"$literal": Bson::Null};
        let found = groups(store, &mut session, (range, ListIndex::OrgStatus), of, in_org(store, org));
        for group in found.await? {
            counts.add(group.class, group.number);
        }
    }
    Ok(counts)
}

/// Counts, for each user, the tasks that nobody else in the organisation sees. Without an organisation, it counts all tasks of the user.
pub(super) async fn of_creators(
    store: &MongoStore,
    users: &[UserId],
    org: Option<&OrgId>,
    moment: Timestamp,
) -> Result<HashMap<UserId, Counts>, StoreError> {
    let mut session = snapshot(store, Some(moment)).await?;
    let mut counts: HashMap<UserId, Counts> =
        users.iter().map(|user| (user.clone(), Counts::default())).collect();
    let named: Vec<Bson> = users.iter().flat_map(|user| names(user.as_str())).collect();
    let of = doc! {"$toString": "$createdBy"};
    let is_own = match org {
        Some(org) => doc! {"$not": [in_org(store, org)]},
        None => doc! {"$literal": true},
    };
    let is_own = doc! {"$and": [has_type("$createdBy", &["string", "objectId"]), is_own]};
    let of = doc! {"$cond": [is_own.clone(), of, Bson::Null]};
    let range = (doc! {"createdBy": {"$in": named}}, ListIndex::CreatorInOrgStatus);
    for group in groups(store, &mut session, range, of, is_own).await? {
        let creator = group.of.as_deref().and_then(UserId::parse);
        if let Some(counts) = creator.and_then(|user| counts.get_mut(&user)) {
            counts.add(group.class, group.number);
        }
    }
    Ok(counts)
}

/// The number of tasks of one creator and one status class.
struct Group {
    of: Option<String>,
    class: StatusClass,
    number: u64,
}

/// Counts the tasks of an index range in groups. The expression `of` returns the owner of a task, and `counts` returns whether it counts.
async fn groups(
    store: &MongoStore,
    session: &mut ClientSession,
    (range, index): (Document, ListIndex),
    of: Document,
    counts: Document,
) -> Result<Vec<Group>, StoreError> {
    let mut found = Vec::new();
    // Only a filter may check whether a text is a usable id, because an expression fails on invalid UTF-8.
    let is_short = doc! {"$lte": [{"$strLenBytes": "$_id"}, number(TaskId::MAX_BYTES)]};
    let text = doc! {"$and": [has_type("$_id", &["string"]), is_short]};
    let other = doc! {"$or": [
        has_type("$_id", &["objectId", "int", "long", "double", "decimal", "date", "bool", "timestamp"]),
        {"$and": [has_type("$_id", &["binData"]), {"$lte": [{"$binarySize": "$_id"}, number(MAX_BINARY)]}]},
    ]};
    for (kind, filter, is_usable) in [
        (IdKind::Text, vec![range.clone(), is_usable_text(1, TaskId::MAX_BYTES)], text),
        (IdKind::Other, vec![range], other),
    ] {
        if !kind.exists(store, session).await? {
            continue;
        }
        let pipeline = [
            doc! {"$match": {"$and": filter}},
            doc! {"$group": {
                "_id": {"of": of.clone(), "counts": {"$and": [is_usable, counts.clone()]}, "class": class()},
                "n": {"$sum": 1},
            }},
        ];
        let mut hint = store.hints.of(index);
        let groups = loop {
            match grouped(store, session, pipeline.clone(), hint.clone()).await {
                Err(error) if store.hints.is_gone(&mut hint, &error) => {}
                groups => break groups.map_err(store_error)?,
            }
        };
        found.extend(groups.iter().filter_map(Group::read));
    }
    Ok(found)
}

async fn grouped(
    store: &MongoStore,
    session: &mut ClientSession,
    pipeline: [Document; 2],
    hint: Option<Hint>,
) -> Result<Vec<Document>, Error> {
    let collection = store.snapshot_collection().await.map_err(Error::custom)?;
    let mut counted = collection.aggregate(pipeline).collation(exactly());
    if let Some(hint) = hint {
        counted = counted.hint(hint);
    }
    with_timeout(async { counted.session(&mut *session).await?.stream(session).try_collect().await }).await
}

/// Kinds of ids that need different filters. Most collections have ids of one kind.
#[derive(Clone, Copy, Debug)]
enum IdKind {
    Text,
    Other,
}

impl IdKind {
    /// Returns whether the collection has ids of this kind. After the first match, this function sends no more requests.
    async fn exists(self, store: &MongoStore, session: &mut ClientSession) -> Result<bool, StoreError> {
        let (known, types) = match self {
            Self::Text => (&store.has_text_ids, vec!["string"]),
            Self::Other => (&store.has_other_ids, SCALARS.into_iter().chain(["binData"]).collect()),
        };
        if !known.load(Ordering::Relaxed) {
            let collection = store.snapshot_collection().await?;
            let one = collection.find_one(doc! {"_id": {"$type": types}}).projection(doc! {"_id": 1});
            let one = with_timeout(one.collation(exactly()).session(session)).await.map_err(store_error)?;
            known.fetch_or(one.is_some(), Ordering::Relaxed);
        }
        Ok(known.load(Ordering::Relaxed))
    }
}

impl Group {
    /// Decodes a group. `None` means that its tasks do not count.
    fn read(group: &Document) -> Option<Self> {
        let key = group.get_document("_id").ok()?;
        if !key.get_bool("counts").ok()? {
            return None;
        }
        let number = |document: &Document, name| {
            document.get_i64(name).or_else(|_| document.get_i32(name).map(i64::from)).ok()
        };
        Some(Self {
            of: key.get_str("of").ok().map(str::to_owned),
            class: *CLASSES.get(usize::try_from(number(key, "class")?).ok()?)?,
            number: u64::try_from(number(group, "n")?).ok()?,
        })
    }
}

/// An expression that is true if everybody in an organisation sees the task.
fn in_org(store: &MongoStore, org: &OrgId) -> Document {
    let is_named = doc! {"$and": [
        has_type("$orgId", &["string", "objectId"]),
        {"$in": ["$orgId", {"$literal": names(org.as_str())}]},
    ]};
    let mut is_meant = vec![is_named];
    if store.config.default_org.0.as_ref() == Some(org) {
        is_meant.extend([
            is_nothing("$orgId"),
            doc! {"$and": [
                has_type("$orgId", &["string"]), {"$eq": ["$orgId", ""]},
            ]},
        ]);
    }
    let is_public = doc! {"$or": [is_nothing("$isPrivate"), {"$eq": ["$isPrivate", false]}]};
    doc! {"$and": [{"$or": is_meant}, is_public]}
}

/// An expression that returns the index of the status class in [`CLASSES`].
fn class() -> Document {
    let is = |status: Status<'_>| doc! {"$eq": ["$status", status.as_str()]};
    let branches = [
        doc! {"case": {"$not": [has_type("$status", &["string"])]}, "then": 0},
        doc! {"case": is(Status::Merged), "then": 1},
        doc! {"case": is(Status::Failed), "then": 2},
    ];
    doc! {"$switch": {"branches": branches.to_vec(), "default": 0}}
}

fn is_nothing(field: &str) -> Document {
    has_type(field, &["missing", "null"])
}

fn has_type(field: &str, types: &[&str]) -> Document {
    doc! {"$in": [{"$type": field}, types.to_vec()]}
}

fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
