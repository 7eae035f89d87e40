//! What the server does to each change before it sends it.
//!
//! Only what a client may see travels: the visible fields of both images, and of the timeline what this change
//! appended, so that neither a long timeline nor a large field that nobody sees goes over the wire with every
//! status change.

use mongodb::bson::{Bson, Document, doc};

use super::select::visible_fields;

/// In an event after [`pipeline`]: absent when the timeline is as it was, else one of the following.
pub(super) const TIMELINE: &str = "timeline";
/// The entries that were appended; what an insert came with.
pub(super) const ADDED: &str = "added";
/// Both timelines, where one is not the beginning of the other.
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

/// Comparing long timelines costs; most updates don't name them. A replacement names nothing.
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

/// Whether the update says by itself that it only appended: it sets entries, and each has a place behind those that were there. Then the
/// timelines are not compared, which takes MongoDB five times as long as everything else.
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

/// What a timeline has behind the end of another.
fn beyond(old: &str, new: &str) -> Document {
    // `$slice` takes no zero for its count.
    doc! {"$slice": [new, {"$size": old}, {"$max": [1, {"$size": new}]}]}
}

/// By value, so that it does not matter how an update was said: `$push` with `$slice`, and the first into an
/// empty array, set the whole array.
fn compared() -> Document {
    let array = |field: &str| doc! {"$cond": [{"$isArray": field}, field, []]};
    let old_size = doc! {"$size": "$$old"};
    // `$slice` takes no zero for its count.
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
