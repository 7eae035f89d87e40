//! Pages of tasks, newest first.
//!
//! Two runs over the collection, one after the other: tasks whose `createdAt` is a date, by it and then by
//! `_id`; then all others by `_id` alone, so that a text or nothing in `createdAt` neither repeats nor hides one.

use mongodb::bson::{Bson, DateTime, Document, RawBsonRef, RawDocumentBuf, doc, oid::ObjectId};

use super::{
    MongoStore, read,
    select::{Visible, is_hex, narrowed},
};
use crate::{
    store::{Cursor, Page, StoreError, TaskFilter},
    task::{TaskId, Viewer},
};

pub(super) async fn list(
    store: &MongoStore,
    viewer: &Viewer,
    filter: &TaskFilter,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page, StoreError> {
    let default_org = &store.config.default_org;
    let visible = Visible::to(viewer, default_org);
    let mut conditions = narrowed(filter);
    conditions.push(usable_id());
    let wanted = limit.saturating_add(1);

    let mut session = read::snapshot(store, None).await?;
    let mut found = Vec::new();
    if cursor.is_none_or(|cursor| cursor.created_at.is_some()) {
        let mut dated = conditions.clone();
        dated.extend(cursor.and_then(after_date));
        let filter = visible.any_of(&dated, &[has_date()]);
        found = read::find(store, &mut session, filter, doc! {"createdAt": -1, "_id": -1}, wanted).await?;
    }
    if found.len() < wanted {
        conditions.push(doc! {"$nor": [has_date()]});
        conditions
            .extend(cursor.filter(|cursor| cursor.created_at.is_none()).map(|cursor| after_id(&cursor.id)));
        let filter = visible.any_of(&conditions, &has_no_date());
        let rest = wanted - found.len();
        found.extend(read::find(store, &mut session, filter, doc! {"_id": -1}, rest).await?);
    }

    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.iter().rev().find_map(cursor_after) } else { None };
    let tasks = found
        .iter()
        .filter_map(|document| read::read_listed(document, default_org))
        .filter(|task| task.access.allows(viewer) && filter.matches(task))
        .collect();
    Ok(Page { tasks, next })
}

/// Others can't be told to a client, nor be the place where a page ends.
fn usable_id() -> Document {
    doc! {"_id": {"$type": ["objectId", "string"], "$ne": ""}}
}

/// A date itself: an array that holds one sorts and compares in its own ways.
fn has_date() -> Document {
    doc! {"createdAt": {"$type": "date", "$not": {"$type": "array"}}}
}

/// Said so that an index finds the few: "not a date" would read all.
fn has_no_date() -> [Document; 2] {
    const OTHERS: [&str; 15] = [
        "string",
        "number",
        "bool",
        "objectId",
        "object",
        "binData",
        "timestamp",
        "regex",
        "javascript",
        "javascriptWithScope",
        "symbol",
        "dbPointer",
        "minKey",
        "maxKey",
        "undefined",
    ];
    [doc! {"createdAt": null}, doc! {"createdAt": {"$type": OTHERS.to_vec()}}]
}

fn after_date(cursor: &Cursor) -> Option<Document> {
    let time = DateTime::from_millis(cursor.created_at?);
    let mut same_time = after_id(&cursor.id);
    same_time.insert("createdAt", time);
    // The first condition says nothing more, but bounds an index.
    Some(doc! {"createdAt": {"$lte": time}, "$or": [{"createdAt": {"$lt": time}}, same_time]})
}

/// Descending, ObjectIds come before strings.
fn after_id(id: &TaskId) -> Document {
    match read_place(id.as_str()) {
        Bson::ObjectId(id) => doc! {"$or": [{"_id": {"$lt": id}}, {"_id": {"$type": "string"}}]},
        id => doc! {"_id": {"$lt": id}},
    }
}

fn cursor_after(document: &RawDocumentBuf) -> Option<Cursor> {
    let id = match document.get("_id").ok()?? {
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::String(text) => place_of_text(text),
        _ => return None,
    };
    let created_at = match document.get("createdAt") {
        Ok(Some(RawBsonRef::DateTime(time))) => Some(time.timestamp_millis()),
        _ => None,
    };
    Some(Cursor { created_at, id: TaskId::parse(&id)? })
}

/// In a cursor, 24 hex digits are an ObjectId; a string `_id` that looks like one is marked.
fn place_of_text(text: &str) -> String {
    let marked = is_hex(text.trim_start_matches('='));
    if marked { format!("={text}") } else { text.to_owned() }
}

fn read_place(place: &str) -> Bson {
    if is_hex(place)
        && let Ok(id) = ObjectId::parse_str(place)
    {
        return Bson::ObjectId(id);
    }
    let marked = is_hex(place.trim_start_matches('='));
    let text = if marked { place.strip_prefix('=').unwrap_or(place) } else { place };
    Bson::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_tells_text_from_object_ids() {
        for text in ["a", "=", "=a", "65a1b2c3d4e5f60718293a4b", "=65a1b2c3d4e5f60718293a4b"] {
            assert_eq!(read_place(&place_of_text(text)), Bson::String(text.to_owned()));
        }
        let id = "65a1b2c3d4e5f60718293a4b";
        assert_eq!(read_place(id), Bson::ObjectId(ObjectId::parse_str(id).expect("valid")));
    }
}
