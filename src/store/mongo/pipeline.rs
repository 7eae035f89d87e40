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
    doc! {"$switch": {
        "branches": [
            {"case": {"$eq": ["$operationType", "insert"]}, "then": {ADDED: "$fullDocument.events"}},
            {"case": {"$in": ["$operationType", ["update", "replace"]]}, "then": {"$cond": [
                touches_the_timeline(), compared(), "$$REMOVE",
            ]}},
        ],
        "default": "$$REMOVE",
    }}
}

/// Comparing long timelines costs; most updates don't name them. A replacement names nothing.
fn touches_the_timeline() -> Document {
    let named = |name: &str| doc! {"$regexMatch": {"input": name, "regex": "^events(\\.|$)"}};
    let any = |list: Document, name: &str| {
        doc! {"$anyElementTrue": [{"$map": {"input": list, "as": "item", "in": named(name)}}]}
    };
    let or_none = |field: &str, none: Bson| doc! {"$ifNull": [field, none]};
    let updated = doc! {"$objectToArray": or_none("$updateDescription.updatedFields", doc! {}.into())};
    let removed = or_none("$updateDescription.removedFields", Bson::Array(Vec::new()));
    let truncated = or_none("$updateDescription.truncatedArrays", Bson::Array(Vec::new()));
    doc! {"$or": [
        {"$eq": ["$operationType", "replace"]},
        any(updated, "$$item.k"),
        any(removed, "$$item"),
        any(truncated, "$$item.field"),
    ]}
}

/// By value, so that it does not matter how an update was said: `$push` with `$slice`, and the first into an
/// empty array, set the whole array.
fn compared() -> Document {
    let array = |field: &str| doc! {"$cond": [{"$isArray": field}, field, []]};
    let old_size = doc! {"$size": "$$old"};
    let new_size = doc! {"$size": "$$new"};
    // `$slice` takes no zero for its count.
    let kept = doc! {"$cond": [
        {"$eq": [old_size.clone(), 0]}, [], {"$slice": ["$$new", 0, {"$max": [1, old_size.clone()]}]},
    ]};
    let added = doc! {"$slice": ["$$new", old_size, {"$max": [1, new_size]}]};
    doc! {"$let": {
        "vars": {"old": array("$fullDocumentBeforeChange.events"), "new": array("$fullDocument.events")},
        "in": {"$cond": [
            {"$eq": [kept, "$$old"]},
            {ADDED: added},
            {BEFORE: "$$old", AFTER: "$$new"},
        ]},
    }}
}
