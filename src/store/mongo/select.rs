//! Filters and projections: which documents are meant, and which of their fields are read.
//!
//! Each filter says exactly what `meaning.rs` and the domain say, if the operation compares [`exactly`]. An equality of
//! MongoDB is also true of an array that contains the value, and of a symbol that is written alike: so each goes with a
//! condition on the type.

use mongodb::{
    bson::{Bson, Document, doc, oid::ObjectId},
    options::Collation,
};

use super::{
    ids::{self, MAX_BINARY, is_hex},
    indexes::ListIndex,
};
use crate::{
    github::{self, Repository, Search},
    store::TaskFilter,
    task::{Access, DefaultOrg, Field, OrgId, TaskId, UserId, Viewer, Window},
};

/// The collation of every operation on tasks: the collection's own may take ACME for acme.
pub(super) fn exactly() -> Collation {
    Collation::builder().locale("simple").build()
}

/// What the text of a user or an organisation may stand for in a document.
pub(super) fn names(text: &str) -> Vec<Bson> {
    let object_id = is_hex(text).then(|| ObjectId::parse_str(text).ok()).flatten().map(Bson::ObjectId);
    object_id.into_iter().chain([Bson::String(text.to_owned())]).collect()
}

/// One of these values, and not an array, a symbol or `undefined` that MongoDB takes for one.
fn is_one_of(values: Vec<Bson>) -> Document {
    doc! {"$in": values, "$not": {"$type": ["array", "symbol", "undefined"]}}
}

pub(super) fn by_id(id: &TaskId) -> Document {
    by_any_id(std::slice::from_ref(id))
}

pub(super) fn by_any_id(tasks: &[TaskId]) -> Document {
    let named: Vec<Bson> = tasks.iter().flat_map(|id| ids::candidates(id.as_str())).collect();
    doc! {"_id": {"$in": named}}
}

/// What is no character of a usable id.
const CONTROL: &str = r"\x00-\x1f\x7f-\x{9f}";

/// A text of so many characters. A regular expression does not match broken text, nor what is no text.
pub(super) fn is_usable_text(from: usize, to: usize) -> Document {
    doc! {"_id": {"$regex": format!(r"\A[^{CONTROL}]{{{from},{to}}}\z")}}
}

/// Whether `ids::task_id` has an id for the document. It costs more than the rest of a list's filter, and MongoDB may take it for a reason to
/// sort in memory: so it is only asked where such documents were found.
pub(super) fn has_usable_id() -> Document {
    let at_most = |bson_type: &str, size: &str, bytes: usize| {
        let is_of_type = doc! {"$eq": [{"$type": "$_id"}, bson_type]};
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        doc! {"$expr": {"$lte": [{"$cond": [is_of_type, {size: "$_id"}, 0]}, bytes]}}
    };
    // A character has up to four bytes. Few ids are so long that their bytes have to be counted.
    let is_text = || doc! {"_id": {"$type": "string"}};
    let mut long = doc! {"$and": [is_text(), is_usable_text(TaskId::MAX_BYTES / 4 + 1, TaskId::MAX_BYTES)]};
    long.extend(at_most("string", "$strLenBytes", TaskId::MAX_BYTES));
    let mut binary = doc! {"_id": {"$type": "binData"}};
    binary.extend(at_most("binData", "$binarySize", MAX_BINARY));
    doc! {"$or": [
        {"_id": {"$type": SCALARS.to_vec()}},
        {"$and": [is_text(), is_usable_text(1, TaskId::MAX_BYTES / 4)]},
        long,
        binary,
    ]}
}

/// The types of which every value is a usable id.
pub(super) const SCALARS: [&str; 5] = ["objectId", "number", "date", "bool", "timestamp"];

/// What `Access::allows` says of documents that are tasks, as filters.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    /// Created by the viewers.
    own: Document,
    /// Public in the viewer's organisation.
    org: Option<Document>,
    /// What names that organisation.
    org_names: Vec<Bson>,
}

/// Documents that can be seen in one way, and the index that has them in their order.
#[derive(Clone, Debug)]
pub(super) struct Way {
    condition: Document,
    pub(super) index: ListIndex,
}

impl Visible {
    /// What any of some users of one organisation, or of none, sees.
    pub(super) fn of(users: &[UserId], org: Option<&OrgId>, default_org: &DefaultOrg) -> Self {
        let mut org_names = org.map(|org| names(org.as_str())).unwrap_or_default();
        if org.is_some() && default_org.0.as_ref() == org {
            org_names.extend([Bson::Null, Bson::String(String::new())]);
        }
        let is_public = || is_one_of(vec![Bson::Null, false.into()]);
        let org = org.map(|_| doc! {"orgId": is_one_of(org_names.clone()), "isPrivate": is_public()});
        Self { own: created_by(users), org, org_names }
    }

    /// The tasks of a list that is narrowed by `filter`, for one viewer: all that are seen in one of these ways.
    pub(super) fn listed(viewer: &Viewer, filter: &TaskFilter, default_org: &DefaultOrg) -> Vec<Way> {
        let visible = Self::of(std::slice::from_ref(&viewer.user), viewer.org.as_ref(), default_org);
        let mut ways = match (&filter.creator, visible.shared()) {
            (None, shared) => shared.into_iter().chain([visible.own()]).collect(),
            (Some(creator), _) if *creator == viewer.user => vec![visible.own()],
            // What somebody else created is seen with the organisation only.
            (Some(_), Some(shared)) => vec![Way { index: ListIndex::CreatorInOrg, ..shared }],
            (Some(_), None) => Vec::new(),
        };
        if filter.status.is_some() {
            ways.iter_mut().for_each(|way| way.index = way.index.of_one_status());
        }
        ways
    }

    /// What the whole organisation sees too.
    pub(super) fn shared(&self) -> Option<Way> {
        self.org.clone().map(|condition| Way { condition, index: ListIndex::Org })
    }

    pub(super) fn own(&self) -> Way {
        Way { condition: self.own.clone(), index: ListIndex::Creator }
    }

    /// What nobody else in the organisation sees: private, or of another organisation. Not all of it where a document has an array for
    /// one of these, for an index can't tell these.
    pub(super) fn only_own(&self) -> Vec<Way> {
        if self.org.is_none() {
            return vec![self.own()];
        }
        let with = |condition: Document| Way {
            condition: doc! {"$and": [self.own.clone(), condition]},
            index: ListIndex::CreatorInOrg,
        };
        vec![
            with(doc! {"isPrivate": {"$nin": [Bson::Null, Bson::Boolean(false)]}}),
            with(doc! {"orgId": {"$nin": self.org_names.clone()}}),
        ]
    }
}

impl Way {
    /// The documents that meet the conditions. Some may have an `_id` that no task can have.
    pub(super) fn with(&self, conditions: &[Document]) -> Document {
        let all = std::iter::once(&self.condition).chain(conditions);
        doc! {"$and": all.cloned().collect::<Vec<_>>()}
    }
}

/// The conditions of a list's filter.
pub(super) fn narrowed(filter: &TaskFilter) -> Vec<Document> {
    let status = filter.status.as_ref().map(|status| doc! {"status": is_one_of(vec![status.into()])});
    status
        .into_iter()
        .chain(filter.creator.as_ref().map(|user| created_by(std::slice::from_ref(user))))
        .collect()
}

/// The documents that a delivery's search may mean, and some more: the repository is compared as text. Each
/// alternative has its own index.
pub(super) fn meant_by(search: &Search) -> Document {
    let mut alternatives = Vec::new();
    let mut either = |field: Field, value: Bson, repo: Document| {
        for name in field.document_names() {
            let mut alternative = repo.clone();
            alternative.insert(*name, value.clone());
            alternatives.push(alternative);
        }
    };
    let of = |repo: &Repository| {
        let names: Vec<String> = repo.names().map(|name| name.replace('.', "\\.")).collect();
        doc! {"repo": {"$regex": format!("^({})$", names.join("|")), "$options": "i"}}
    };
    let links = |repo: &Repository, url: &Option<String>| {
        url.as_deref().map(|url| repo.links(url)).unwrap_or_default()
    };
    let of_none = || doc! {"repo": {"$in": [Bson::Null, Bson::String(String::new())]}};
    let number = |number: u64| Bson::Int64(i64::try_from(number).unwrap_or(i64::MAX));
    let mut named = Vec::new();
    for way in &search.ways {
        match way {
            github::Way::PullRequest { repo, number: pr, url } => {
                either(Field::PrNumber, number(*pr), of(repo));
                links(repo, url).into_iter().for_each(|url| either(Field::PrUrl, url.into(), of_none()));
            }
            github::Way::Issue { repo, number: issue, url } => {
                either(Field::IssueNumber, number(*issue), of(repo));
                links(repo, url).into_iter().for_each(|url| either(Field::IssueUrl, url.into(), of_none()));
            }
            github::Way::Branch { repo, branch } | github::Way::CheckedBranch { repo, branch } => {
                either(Field::GithubBranch, branch.into(), of(repo))
            }
            github::Way::Named { ids: tasks, .. } => {
                named.extend(tasks.iter().flat_map(|id| ids::candidates(id.as_str())))
            }
        }
    }
    if !named.is_empty() {
        alternatives.push(doc! {"_id": {"$in": named}});
    }
    doc! {"$or": alternatives}
}

/// The visible fields under all their names, as an inclusion.
pub(super) fn visible_fields() -> Document {
    let names = Field::ALL.iter().flat_map(|field| field.document_names());
    names.map(|name| ((*name).to_owned(), Bson::Int32(1))).collect()
}

/// What decides who sees a task, as an inclusion.
pub(super) fn access_fields() -> Document {
    Access::FIELDS.map(|name| (name.to_owned(), Bson::Int32(1))).into_iter().collect()
}

/// The visible fields and the timeline.
pub(super) fn whole_task() -> Document {
    let mut fields = visible_fields();
    fields.insert("events", 1);
    fields
}

/// In a document read with [`part_of_task`]: how many entries the timeline has.
pub(super) const TIMELINE_LENGTH: &str = "timelineLength";

/// The visible fields and those entries of the timeline that the window means. `meaning::part_of_task` reads it.
pub(super) fn part_of_task(window: Window) -> Document {
    if window == Window::ALL {
        return whole_task();
    }
    let is_array = || doc! {"$isArray": "$events"};
    let mut fields = visible_fields();
    fields.insert("events", doc! {"$cond": [is_array(), entries_in(window), Bson::Null]});
    fields.insert(TIMELINE_LENGTH, doc! {"$cond": [is_array(), {"$size": "$events"}, 0]});
    fields
}

/// The last `most` of the first `before`.
fn entries_in(Window { before, most }: Window) -> Document {
    // No document holds as many entries as these numbers may say.
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    doc! {"$slice": [{"$slice": ["$events", count(before)]}, -count(most)]}
}

/// The visible fields, and `events` as far as a write has to know it: an array without its entries, or what is there instead.
pub(super) fn without_entries() -> Document {
    let mut fields = visible_fields();
    fields.insert("events", doc! {"$cond": [{"$isArray": "$events"}, [], "$events"]});
    fields
}

fn created_by(users: &[UserId]) -> Document {
    doc! {"createdBy": is_one_of(users.iter().flat_map(|user| names(user.as_str())).collect())}
}
