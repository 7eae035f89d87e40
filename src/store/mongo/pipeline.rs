//! The aggregation pipeline that the server applies to each change before it sends the change.
//!
//! The server sends only what a client may see: the visible fields of both images, and the timeline entries that the change appended. A
//! long timeline, or a large field that no client sees, is therefore not sent with every status change.

use mongodb::bson::{Bson, Document, doc};

use super::select::visible_fields;

/// The field of an event that describes the timeline after [`pipeline`]. It is absent if the timeline has not changed. Otherwise it
/// contains either [`ADDED`], or [`BEFORE`] and [`AFTER`].
pub(super) const TIMELINE: &str = "timeline";
/// The appended entries, or all entries of an inserted task.
pub(super) const ADDED: &str = "added";
/// Both timelines, if the new one does not begin with the old one.
pub(super) const BEFORE: &str = "before";
pub(super) const AFTER: &str = "after";

pub(super) fn pipeline() -> Vec<Document> {
    let mut image = doc! {"_id": 1};
    image.extend(visible_fields());
    vec![doc! {"$project": {
        "operationType": 1,
        "clusterTime": 1,
        "wallTime": 1,
        "documentKey": 1,
        "fullDocument": image.clone(),
        "fullDocumentBeforeChange": image,
        TIMELINE: timeline(),
    }}]
}

fn timeline() -> Document {
    let changed = doc! {"$switch": {
        "branches": [
            {"case": {"$not": [touches_the_timeline()]}, "then": "$$REMOVE"},
            {"case": appends(), "then": {ADDED: beyond("$fullDocumentBeforeChange.events", "$fullDocument.events")}},
        ],
        "default": compared(),
    }};
    doc! {"$switch": {
        "branches": [
            {"case": {"$eq": ["$operationType", "insert"]}, "then": {ADDED: "$fullDocument.events"}},
            {"case": {"$in": ["$operationType", ["update", "replace"]]}, "then": changed},
        ],
        "default": "$$REMOVE",
    }}
}

/// The fields that an update sets, as `{k: name, v: value}`.
fn updated() -> Document {
    doc! {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}
}

/// An expression that is true if the change may have changed the timeline. Most updates do not name it, and comparing long timelines is
/// expensive. A replacement names no fields, so its timelines are always compared.
fn touches_the_timeline() -> Document {
    doc! {"$or": [
        {"$eq": ["$operationType", "replace"]},
        any_names_the_timeline(updated(), "$$item.k"),
        cuts_the_timeline(),
    ]}
}

fn any_names_the_timeline(list: impl Into<Bson>, name: &str) -> Document {
    let named = doc! {"$regexMatch": {"input": name, "regex": "^events(\\.|$)"}};
    doc! {"$anyElementTrue": [{"$map": {"input": list, "as": "item", "in": named}}]}
}

fn cuts_the_timeline() -> Document {
    let or_none = |field: &str| doc! {"$ifNull": [field, []]};
    doc! {"$or": [
        any_names_the_timeline(or_none("$updateDescription.removedFields"), "$$item"),
        any_names_the_timeline(or_none("$updateDescription.truncatedArrays"), "$$item.field"),
    ]}
}

/// An expression that is true if the update description shows that the update only appended: each entry that it sets has an index after the
/// old entries. The timelines are then not compared. A comparison takes MongoDB five times as long as everything else.
fn appends() -> Document {
    let place = doc! {"$toInt": {"$substrBytes": ["$$item.k", "events.".len() as i32, -1]}};
    let is_behind = doc! {"$cond": [
        {"$regexMatch": {"input": "$$item.k", "regex": "^events\\.[0-9]{1,9}$"}},
        {"$gte": [place, {"$size": "$fullDocumentBeforeChange.events"}]},
        {"$not": [{"$regexMatch": {"input": "$$item.k", "regex": "^events(\\.|$)"}}]},
    ]};
    doc! {"$and": [
        {"$eq": ["$operationType", "update"]},
        {"$isArray": "$fullDocumentBeforeChange.events"},
        {"$isArray": "$fullDocument.events"},
        {"$not": [cuts_the_timeline()]},
        {"$allElementsTrue": [{"$map": {"input": updated(), "as": "item", "in": is_behind}}]},
    ]}
}

/// The entries of `new` after the length of `old`.
fn beyond(old: &str, new: &str) -> Document {
    // `$slice` does not accept a count of zero.
    doc! {"$slice": [new, {"$size": old}, {"$max": [1, {"$size": new}]}]}
}

/// Compares the timelines by value, so the form of the update does not matter. `$push` with `$slice`, and the first `$push` into an empty
/// array, set the whole array.
fn compared() -> Document {
    let array = |field: &str| doc! {"$cond": [{"$isArray": field}, field, []]};
    let old_size = doc! {"$size": "$$old"};
    // `$slice` does not accept a count of zero.
    let kept = doc! {"$cond": [
        {"$eq": [old_size.clone(), 0]}, [], {"$slice": ["$$new", 0, {"$max": [1, old_size.clone()]}]},
    ]};
    doc! {"$let": {
        "vars": {"old": array("$fullDocumentBeforeChange.events"), "new": array("$fullDocument.events")},
        "in": {"$cond": [
            {"$eq": [kept, "$$old"]},
            {ADDED: beyond("$$old", "$$new")},
            {BEFORE: "$$old", AFTER: "$$new"},
        ]},
    }}
}
