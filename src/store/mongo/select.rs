//! Builds filters and projections: they select the documents, and the fields that MongoDB returns.
//!
//! Each filter has exactly the meaning of `task_document.rs` and the domain code, if the operation uses the collation [`exactly`]. MongoDB's
//! equality also matches an array that contains the value, and a symbol with the same text. Each equality therefore has a condition on the
//! type.

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

/// The collation of every operation on tasks. The collection's own collation may treat ACME and acme as equal.
pub(super) fn exactly() -> Collation {
    Collation::builder().locale("simple").build()
}

/// The values in a document that the text of a user or an organisation may represent.
pub(super) fn names(text: &str) -> Vec<Bson> {
    let object_id = is_hex(text).then(|| ObjectId::parse_str(text).ok()).flatten().map(Bson::ObjectId);
    object_id.into_iter().chain([Bson::String(text.to_owned())]).collect()
}

/// Matches one of these values, but not an array, a symbol or `undefined` that MongoDB considers equal.
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

/// The characters that a usable id must not contain.
const CONTROL_CHARACTERS: &str = r"\x00-\x1f\x7f-\x{9f}";

/// Matches ids that are texts of `from` to `to` characters. A regular expression matches neither invalid UTF-8 nor values of other types.
pub(super) fn is_usable_text(from: usize, to: usize) -> Document {
    doc! {"_id": {"$regex": format!(r"\A[^{CONTROL_CHARACTERS}]{{{from},{to}}}\z")}}
}

/// Matches documents for which `ids::task_id` returns an id. This filter costs more than the rest of a list's filter, and it may cause
/// MongoDB to sort in memory. It is therefore used only after a document without a usable id was found.
pub(super) fn has_usable_id() -> Document {
    let at_most = |bson_type: &str, size: &str, bytes: usize| {
        let is_of_type = doc! {"$eq": [{"$type": "$_id"}, bson_type]};
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        doc! {"$expr": {"$lte": [{"$cond": [is_of_type, {size: "$_id"}, 0]}, bytes]}}
    };
    // A character has up to four bytes. Only long ids, which are rare, need a count of their bytes.
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

/// The types whose values are all usable ids.
pub(super) const SCALARS: [&str; 5] = ["objectId", "number", "date", "bool", "timestamp"];

/// The rules of `Access::allows` as filters for documents that are tasks.
#[derive(Clone, Debug)]
pub(super) struct AccessFilters {
    /// Tasks that the viewers created.
    own: Document,
    /// Public tasks of the viewer's organisation.
    org: Option<Document>,
    /// The values that name this organisation.
    org_names: Vec<Bson>,
}

/// A filter for visible tasks, and the index that returns these tasks in order.
#[derive(Clone, Debug)]
pub(super) struct IndexedFilter {
    condition: Document,
    pub(super) index: ListIndex,
}

impl AccessFilters {
    /// The tasks that at least one of these users sees. All users belong to one organisation, or all belong to none.
    pub(super) fn of(users: &[UserId], org: Option<&OrgId>, default_org: &DefaultOrg) -> Self {
        let mut org_names = org.map(|org| names(org.as_str())).unwrap_or_default();
        if org.is_some() && default_org.0.as_ref() == org {
            org_names.extend([Bson::Null, Bson::String(String::new())]);
        }
        let is_public = || is_one_of(vec![Bson::Null, false.into()]);
        let org = org.map(|_| doc! {"orgId": is_one_of(org_names.clone()), "isPrivate": is_public()});
        Self { own: created_by(users), org, org_names }
    }

    /// The filters for the tasks of a list with `filter`. Together they match all tasks of the list that the viewer sees.
    pub(super) fn for_list(
        viewer: &Viewer,
        filter: &TaskFilter,
        default_org: &DefaultOrg,
    ) -> Vec<IndexedFilter> {
        let visible = Self::of(std::slice::from_ref(&viewer.user), viewer.org.as_ref(), default_org);
        let mut filters = match (&filter.creator, visible.shared()) {
            (None, shared) => shared.into_iter().chain([visible.own()]).collect(),
            (Some(creator), _) if *creator == viewer.user => vec![visible.own()],
            // The viewer sees tasks of another creator only through the organisation.
            (Some(_), Some(shared)) => vec![IndexedFilter { index: ListIndex::CreatorInOrg, ..shared }],
            (Some(_), None) => Vec::new(),
        };
        if filter.status.is_some() {
            filters
                .iter_mut()
                .for_each(|indexed_filter| indexed_filter.index = indexed_filter.index.with_status());
        }
        filters
    }

    /// Tasks that the whole organisation sees.
    pub(super) fn shared(&self) -> Option<IndexedFilter> {
        self.org.clone().map(|condition| IndexedFilter { condition, index: ListIndex::Org })
    }

    pub(super) fn own(&self) -> IndexedFilter {
        IndexedFilter { condition: self.own.clone(), index: ListIndex::Creator }
    }

    /// Tasks that nobody else in the organisation sees: private tasks, and tasks of another organisation. Some of them may be missing if
    /// `isPrivate` or `orgId` is an array, because the index conditions can't recognise arrays.
    pub(super) fn only_own(&self) -> Vec<IndexedFilter> {
        if self.org.is_none() {
            return vec![self.own()];
        }
        let with = |condition: Document| IndexedFilter {
            condition: doc! {"$and": [self.own.clone(), condition]},
            index: ListIndex::CreatorInOrg,
        };
        vec![
            with(doc! {"isPrivate": {"$nin": [Bson::Null, Bson::Boolean(false)]}}),
            with(doc! {"orgId": {"$nin": self.org_names.clone()}}),
        ]
    }
}

impl IndexedFilter {
    /// Adds conditions to the filter. Some documents may have an `_id` that no task can have.
    pub(super) fn and(&self, conditions: &[Document]) -> Document {
        let all = std::iter::once(&self.condition).chain(conditions);
        doc! {"$and": all.cloned().collect::<Vec<_>>()}
    }
}

/// The conditions of a list's filter.
pub(super) fn list_conditions(filter: &TaskFilter) -> Vec<Document> {
    let status = filter.status.as_ref().map(|status| doc! {"status": is_one_of(vec![status.into()])});
    status
        .into_iter()
        .chain(filter.creator.as_ref().map(|user| created_by(std::slice::from_ref(user))))
        .collect()
}

/// Matches the documents that a delivery's search may select, and some more, because the repository is compared as text. An index scan can
/// answer each alternative.
pub(super) fn delivery_filter(search: &Search) -> Document {
    let mut alternatives = Vec::new();
    let mut add = |field: Field, value: Bson, repo: Document| {
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
    for criterion in &search.criteria {
        match criterion {
            github::Criterion::PullRequest { repo, number: pr, url } => {
                add(Field::PrNumber, number(*pr), of(repo));
                links(repo, url).into_iter().for_each(|url| add(Field::PrUrl, url.into(), of_none()));
            }
            github::Criterion::Issue { repo, number: issue, url } => {
                add(Field::IssueNumber, number(*issue), of(repo));
                links(repo, url).into_iter().for_each(|url| add(Field::IssueUrl, url.into(), of_none()));
            }
            github::Criterion::Branch { repo, branch }
            | github::Criterion::CheckedBranch { repo, branch } => {
                add(Field::GithubBranch, branch.into(), of(repo))
            }
            github::Criterion::TaskIds { ids: tasks, .. } => {
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

/// The fields that decide who sees a task, as an inclusion.
pub(super) fn access_fields() -> Document {
    Access::FIELDS.map(|name| (name.to_owned(), Bson::Int32(1))).into_iter().collect()
}

/// The visible fields and the timeline.
pub(super) fn full_task_fields() -> Document {
    let mut fields = visible_fields();
    fields.insert("events", 1);
    fields
}

/// The field with the number of timeline entries, in a document that was read with [`windowed_task_fields`].
pub(super) const TIMELINE_LENGTH: &str = "timelineLength";

/// The visible fields, and the timeline entries in the window. `task_document::windowed_task` decodes the result.
pub(super) fn windowed_task_fields(window: Window) -> Document {
    if window == Window::ALL {
        return full_task_fields();
    }
    let is_array = || doc! {"$isArray": "$events"};
    let mut fields = visible_fields();
    fields.insert("events", doc! {"$cond": [is_array(), timeline_slice(window), Bson::Null]});
    fields.insert(TIMELINE_LENGTH, doc! {"$cond": [is_array(), {"$size": "$events"}, 0]});
    fields
}

/// The last `limit` entries of the first `before` entries.
fn timeline_slice(Window { before, limit }: Window) -> Document {
    // The conversion may reduce the numbers to `i32::MAX`. No document can contain that many entries.
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    doc! {"$slice": [{"$slice": ["$events", count(before)]}, -count(limit)]}
}

/// The visible fields, the length of the timeline, and `events` as far as a write needs it: an empty array in place of any array, or else the
/// value itself.
pub(super) fn fields_without_entries() -> Document {
    let mut fields = visible_fields();
    fields.insert("events", doc! {"$cond": [{"$isArray": "$events"}, [], "$events"]});
    fields.insert(TIMELINE_LENGTH, doc! {"$cond": [{"$isArray": "$events"}, {"$size": "$events"}, 0]});
    fields
}

fn created_by(users: &[UserId]) -> Document {
    doc! {"createdBy": is_one_of(users.iter().flat_map(|user| names(user.as_str())).collect())}
}
