//! The order of lists: the newest task first, whatever type its `createdAt` has.
//!
//! MongoDB sorts by type before it sorts by value. A list therefore consists of several runs. Each run is a range of `createdAt` within one
//! type, which an index returns in order. The store merges the runs by time. The run of texts is in the order of the texts. If some texts
//! have an offset other than `Z`, this order may differ from the order of their times by up to that offset.

use std::cmp::{Ordering, Reverse};

use mongodb::bson::{Bson, DateTime, Document, RawBson, RawBsonRef, RawDocument, doc};

use super::{ids, numbers, task_document};
use crate::{
    store::RunCursor,
    task::{MILLIS_THRESHOLD, TIME_TEXT, TaskId, Timestamp},
};

/// A part of a list that is read separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Run {
    Dates,
    Texts,
    Millis,
    Seconds,
    OldMillis,
    Timestamps,
    /// Tasks whose `createdAt` is missing or null. They come after all tasks with a time, in the order of `_id`.
    Missing,
    /// Tasks whose `createdAt` is not a valid time. They come last, in the order of `_id`.
    Invalid,
}

impl Run {
    pub(super) const DATED: [Self; 6] =
        [Self::Dates, Self::Texts, Self::Millis, Self::Seconds, Self::OldMillis, Self::Timestamps];

    /// The name of the run in a cursor.
    fn name(self) -> char {
        match self {
            Self::Dates => 'd',
            Self::Texts => 't',
            Self::Millis => 'm',
            Self::Seconds => 's',
            Self::OldMillis => 'o',
            Self::Timestamps => 'c',
            Self::Missing => 'n',
            Self::Invalid => 'x',
        }
    }

    fn is_dated(self) -> bool {
        Self::DATED.contains(&self)
    }

    pub(super) fn filter(self) -> Document {
        let within = |range: Document| {
            let mut condition = range;
            condition.insert("$not", doc! {"$type": "array"});
            doc! {"createdAt": condition}
        };
        let date = |millis| Bson::DateTime(DateTime::from_millis(millis));
        match self {
            Self::Dates => within(doc! {"$gte": date(Timestamp::FIRST), "$lte": date(Timestamp::LAST)}),
            Self::Texts => within(doc! {"$gte": "0", "$lt": ":", "$type": "string", "$regex": TIME_TEXT}),
            Self::Millis => within(doc! {"$gte": MILLIS_THRESHOLD, "$lt": Timestamp::LAST + 1}),
            Self::Seconds => within(doc! {"$gt": EARLIEST_SECOND, "$lt": MILLIS_THRESHOLD}),
            Self::OldMillis => within(doc! {"$gte": Timestamp::FIRST, "$lte": -MILLIS_THRESHOLD}),
            Self::Timestamps => within(doc! {"$type": "timestamp"}),
            Self::Missing => doc! {"createdAt": {"$eq": null, "$not": {"$type": ["array", "undefined"]}}},
            Self::Invalid => invalid_times(true),
        }
    }

    pub(super) fn order(self) -> Document {
        if self.is_dated() {
            newest_first()
        } else {
            doc! {"_id": -1}
        }
    }

    /// The run that contains a document.
    pub(super) fn of(document: &RawDocument) -> Self {
        let created_at = document.get("createdAt").ok().flatten();
        if task_document::created_at(document).is_none() {
            return match created_at {
                None if document.get("createdAt").is_ok() => Self::Missing,
                Some(RawBsonRef::Null) => Self::Missing,
                _ => Self::Invalid,
            };
        }
        match created_at {
            Some(RawBsonRef::DateTime(_)) => Self::Dates,
            Some(RawBsonRef::Timestamp(_)) => Self::Timestamps,
            Some(RawBsonRef::String(_)) => Self::Texts,
            other => match other.and_then(number) {
                Some(number) if number >= MILLIS_THRESHOLD => Self::Millis,
                Some(number) if number <= -MILLIS_THRESHOLD => Self::OldMillis,
                _ => Self::Seconds,
            },
        }
    }

    /// A filter for the documents after a cursor in this run. `None` means that the cursor is not valid for this run.
    pub(super) fn after(self, run_cursor: &RunCursor) -> Option<Document> {
        let id = id_value(&run_cursor.id)?;
        if !self.is_dated() {
            return Some(ids_below(id));
        }
        let at = match self {
            Self::Texts => Bson::String(run_cursor.created_at.clone()),
            Self::Dates => Bson::DateTime(DateTime::from_millis(run_cursor.created_at.parse().ok()?)),
            Self::Timestamps => {
                candidate(&run_cursor.created_at, |value| matches!(value, Bson::Timestamp(_)))?
            }
            _ => match run_cursor.created_at.strip_prefix(DECIMAL) {
                Some(number) => Bson::Decimal128(number.parse().ok()?),
                None => candidate(&run_cursor.created_at, |value| {
                    matches!(value, Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_))
                })?,
            },
        };
        let mut same_time = ids_below(id);
        same_time.insert("createdAt", at.clone());
        // The first condition is redundant, but it limits the index scan.
        Some(doc! {"createdAt": {"$lte": at.clone()}, "$or": [{"createdAt": {"$lt": at}}, same_time]})
    }

    pub(super) fn find(self, run_cursors: &[RunCursor]) -> Option<&RunCursor> {
        run_cursors.iter().find(|run_cursor| run_cursor.run == self.name())
    }
}

/// The filter of [`Run::Invalid`], which contains all documents that are in no other run. The ranges let an index scan find these documents
/// without reading all documents that have a time. Exceptions are arrays, and texts that are not times among texts that are.
pub(super) fn invalid_times(with_arrays: bool) -> Document {
    const TYPES: [&str; 13] = [
        "string",
        "object",
        "binData",
        "undefined",
        "objectId",
        "bool",
        "regex",
        "dbPointer",
        "javascript",
        "symbol",
        "javascriptWithScope",
        "minKey",
        "maxKey",
    ];
    let types: Vec<&str> = TYPES.into_iter().chain(with_arrays.then_some("array")).collect();
    let date = |millis| Bson::DateTime(DateTime::from_millis(millis));
    let ranges = [
        doc! {"$lt": date(Timestamp::FIRST)},
        doc! {"$gt": date(Timestamp::LAST)},
        doc! {"$lt": Timestamp::FIRST},
        doc! {"$gt": -MILLIS_THRESHOLD, "$lte": EARLIEST_SECOND},
        doc! {"$gte": Timestamp::LAST + 1},
        doc! {"$eq": f64::NAN},
        doc! {"$type": types},
    ];
    let others = Run::DATED.into_iter().chain([Run::Missing]).map(Run::filter);
    doc! {
        "$or": ranges.map(|range| doc! {"createdAt": range}).to_vec(),
        "$nor": others.collect::<Vec<_>>(),
    }
}

/// The prefix of a decimal number in a cursor. It keeps the number a decimal, because possibly no double is equal to it.
const DECIMAL: &str = "decimal:";
/// The lower limit of seconds, half a millisecond before the first time that can be written. Numbers above this limit are rounded up to
/// that time.
const EARLIEST_SECOND: f64 = Timestamp::FIRST as f64 / 1000.0 - 0.0005;

/// The sort order of the list indexes, the newest task first.
pub(super) fn newest_first() -> Document {
    doc! {"createdAt": -1, "_id": -1}
}

/// A filter for documents whose time may have another type than date.
pub(super) fn has_other_time() -> Document {
    doc! {"createdAt": {"$type": ["string", "number", "timestamp"]}}
}

/// The cursor that points to a document in its run.
pub(super) fn run_cursor_at(run: Run, document: &RawDocument, id: &TaskId) -> Option<RunCursor> {
    let created_at = match document.get("createdAt").ok().flatten() {
        Some(RawBsonRef::DateTime(time)) => time.timestamp_millis().to_string(),
        Some(RawBsonRef::String(text)) => text.to_owned(),
        Some(RawBsonRef::Decimal128(number)) if run.is_dated() => format!("{DECIMAL}{number}"),
        Some(value) if run.is_dated() => ids::text(value)?,
        _ => String::new(),
    };
    let created_at = if run.is_dated() { created_at } else { String::new() };
    Some(RunCursor { run: run.name(), created_at, id: id.clone() })
}

fn candidate(text: &str, accepts: impl Fn(&Bson) -> bool) -> Option<Bson> {
    ids::candidates(text).into_iter().find(|value| accepts(value))
}

fn id_value(id: &TaskId) -> Option<Bson> {
    ids::candidates(id.as_str()).into_iter().find(|value| {
        let raw = RawBson::try_from(value.clone()).ok();
        raw.and_then(|raw| ids::id(raw.as_raw_bson_ref())).is_some_and(|known| known.is_same_document(id))
    })
}

/// A filter for smaller ids in MongoDB's order. A comparison matches only values of the same type, so the filter also names the smaller
/// types.
fn ids_below(id: Bson) -> Document {
    const TYPES: [&str; 7] = ["number", "string", "binData", "objectId", "bool", "date", "timestamp"];
    let (own, is_nan) = match &id {
        Bson::String(_) => (1, false),
        Bson::Binary(_) => (2, false),
        Bson::ObjectId(_) => (3, false),
        Bson::Boolean(_) => (4, false),
        Bson::DateTime(_) => (5, false),
        Bson::Timestamp(_) => (6, false),
        Bson::Double(number) => (0, number.is_nan()),
        Bson::Decimal128(number) => (0, number.to_string() == "NaN"),
        _ => (0, false),
    };
    let mut below = vec![doc! {"_id": {"$lt": id}}, doc! {"_id": {"$type": TYPES[..own].to_vec()}}];
    if own == 0 {
        // NaN comes before all numbers, but a comparison with a number does not match it.
        below[1] = doc! {"_id": f64::NAN};
        below.truncate(if is_nan { 1 } else { 2 });
    }
    doc! {"$or": below}
}

/// The sort key of a task in a list. The task with the greater key comes first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) millis: Option<i64>,
    run: Reverse<Run>,
    created_at: Value,
    id: Value,
}

/// A value that is compared in MongoDB's order of types.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(Number),
    Text(String),
    Binary(usize, u8, Vec<u8>),
    ObjectId([u8; 12]),
    Boolean(bool),
    Date(i64),
    Timestamp(u32, u32),
    Other,
}

impl Key {
    pub(super) fn of(document: &RawDocument) -> Self {
        let read = |name| document.get(name).ok().flatten().map_or(Value::Other, Value::of);
        let run = Run::of(document);
        let created_at = if run.is_dated() { read("createdAt") } else { Value::Other };
        Self { millis: task_document::created_at(document), run: Reverse(run), created_at, id: read("_id") }
    }
}

impl Key {
    /// The order of the index within a run.
    pub(super) fn order_in_run(&self, other: &Self) -> Ordering {
        self.created_at.order(&other.created_at).then_with(|| self.id.order(&other.id))
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = (self.millis, self.run).cmp(&(other.millis, other.run));
        by_time.then_with(|| self.order_in_run(other))
    }
}

impl Value {
    fn of(value: RawBsonRef<'_>) -> Self {
        match value {
            RawBsonRef::String(text) => Self::Text(text.to_owned()),
            RawBsonRef::Binary(binary) => {
                Self::Binary(binary.bytes.len(), binary.subtype.into(), binary.bytes.to_vec())
            }
            RawBsonRef::ObjectId(id) => Self::ObjectId(id.bytes()),
            RawBsonRef::Boolean(flag) => Self::Boolean(flag),
            RawBsonRef::DateTime(time) => Self::Date(time.timestamp_millis()),
            RawBsonRef::Timestamp(time) => Self::Timestamp(time.time, time.increment),
            other => Number::of(other).map_or(Self::Other, Self::Number),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Binary(..) => 2,
            Self::ObjectId(_) => 3,
            Self::Boolean(_) => 4,
            Self::Date(_) => 5,
            Self::Timestamp(..) => 6,
            Self::Other => 7,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.order(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Binary(a, b, c), Self::Binary(d, e, f)) => (a, b, c).cmp(&(d, e, f)),
            (Self::ObjectId(a), Self::ObjectId(b)) => a.cmp(b),
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Timestamp(a, b), Self::Timestamp(c, d)) => (a, b).cmp(&(c, d)),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// A number as its whole part and its fraction, because different large integers are equal as doubles. `None` is NaN, which comes before
/// all numbers.
#[derive(Clone, Debug, PartialEq)]
struct Number(Option<(i128, f64)>);

impl Number {
    fn of(value: RawBsonRef<'_>) -> Option<Self> {
        match value {
            RawBsonRef::Int32(number) => Some(Self(Some((number.into(), 0.0)))),
            RawBsonRef::Int64(number) => Some(Self(Some((number.into(), 0.0)))),
            RawBsonRef::Decimal128(decimal) => Self::parse(&numbers::decimal(decimal)),
            other => number(other).map(Self::of_double),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let exact = || {
            let rest: f64 = format!("0.{fraction}").parse().ok()?;
            let rest = if whole.starts_with('-') { 0.0 - rest } else { rest };
            Some(Self(Some((whole.parse().ok()?, rest))))
        };
        let is_plain = !text.contains('e');
        is_plain.then(exact).flatten().or_else(|| text.parse().ok().map(Self::of_double))
    }

    fn of_double(number: f64) -> Self {
        /// Larger numbers have no fraction, and an `i128` can't represent all of them. The number itself then replaces the fraction.
        const LARGE: f64 = 1e38;
        let rest = if number.abs() < LARGE { number.fract() + 0.0 } else { number };
        Self((!number.is_nan()).then_some((number as i128, rest)))
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Some((a, b)), Some((c, d))) => a.cmp(&c).then_with(|| b.total_cmp(&d)),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

fn number(value: RawBsonRef<'_>) -> Option<f64> {
    match value {
        RawBsonRef::Int32(number) => Some(number.into()),
        RawBsonRef::Int64(number) => Some(number as f64),
        RawBsonRef::Double(number) => Some(number),
        RawBsonRef::Decimal128(number) => number.to_string().parse().ok(),
        _ => None,
    }
}
