//! Filters and projections: which documents are meant, and which of their fields are read.
//!
//! Each filter says exactly what `meaning.rs` and the domain say, if the operation compares [`exactly`]. An equality of
//! MongoDB is also true of an array that contains the value, and of a symbol that is written alike: so each goes with a
//! condition on the type.

use mongodb::{
    bson::{Bson, Document, doc, oid::ObjectId},
    options::Collation,
};

use super::ids::{self, MAX_BINARY, is_hex};
use crate::{
    github::{Repository, Search, Way},
    store::TaskFilter,
    task::{Access, DefaultOrg, Field, OrgId, Status, StatusClass, TaskId, UserId, Viewer},
};

/// The collation of every operation on tasks: the collection's own may take ACME for acme.
pub(super) fn exactly() -> Collation {
    Collation::builder().locale("simple").build()
}

/// What the text of a user or an organisation may stand for in a document.
fn names(text: &str) -> Vec<Bson> {
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

/// Whether `ids::task_id` has an id for the document. A regular expression does not match broken text.
fn has_usable_id() -> Document {
    let text = |from: usize, to: usize| {
        let pattern = format!(r"\A[^\x00-\x1f\x7f-\x{{9f}}]{{{from},{to}}}\z");
        doc! {"_id": {"$type": "string", "$regex": pattern}}
    };
    let at_most = |bson_type: &str, size: &str, bytes: usize| {
        let is_of_type = doc! {"$eq": [{"$type": "$_id"}, bson_type]};
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        doc! {"$expr": {"$lte": [{"$cond": [is_of_type, {size: "$_id"}, 0]}, bytes]}}
    };
    // A character has up to four bytes. Few ids are so long that their bytes have to be counted.
    let mut long = text(TaskId::MAX_BYTES / 4 + 1, TaskId::MAX_BYTES);
    long.extend(at_most("string", "$strLenBytes", TaskId::MAX_BYTES));
    let mut binary = doc! {"_id": {"$type": "binData"}};
    binary.extend(at_most("binData", "$binarySize", MAX_BINARY));
    doc! {"$or": [
        {"_id": {"$type": ["objectId", "number", "date", "bool", "timestamp"]}},
        text(1, TaskId::MAX_BYTES / 4),
        long,
        binary,
    ]}
}

/// What `Access::allows` says of documents that are tasks, as filters.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    /// Created by the viewers.
    own: Document,
    /// Public in the viewer's organisation.
    org: Option<Document>,
}

/// Documents that can be seen in one of some ways. Each way has its own index.
#[derive(Clone, Debug)]
pub(super) struct Ways(Vec<Document>);

impl Visible {
    pub(super) fn to(viewer: &Viewer, default_org: &DefaultOrg) -> Self {
        Self::of(std::slice::from_ref(&viewer.user), viewer.org.as_ref(), default_org)
    }

    /// What any of some users of one organisation sees.
    pub(super) fn of(users: &[UserId], org: Option<&OrgId>, default_org: &DefaultOrg) -> Self {
        let org = org.map(|org| {
            let mut named = names(org.as_str());
            if default_org.0.as_ref() == Some(org) {
                named.extend([Bson::Null, Bson::String(String::new())]);
            }
            doc! {"orgId": is_one_of(named), "isPrivate": is_one_of(vec![Bson::Null, false.into()])}
        });
        Self { own: created_by(users), org }
    }

    /// All of it.
    pub(super) fn any(&self) -> Ways {
        Ways(self.org.iter().chain([&self.own]).cloned().collect())
    }

    /// What the whole organisation sees too.
    pub(super) fn shared(&self) -> Option<Ways> {
        self.org.clone().map(|org| Ways(vec![org]))
    }

    /// What only the viewer's being its creator shows.
    pub(super) fn only_own(&self) -> Ways {
        let own = match &self.org {
            Some(org) => doc! {"$and": [self.own.clone(), {"$nor": [org.clone()]}]},
            None => self.own.clone(),
        };
        Ways(vec![own])
    }
}

impl Ways {
    /// The tasks that meet the conditions. With an `$or` at the top, each way scans its own index.
    pub(super) fn with(&self, conditions: &[Document]) -> Document {
        let branch = |way: &Document| {
            let all = [way.clone()].into_iter().chain(conditions.iter().cloned()).chain([has_usable_id()]);
            doc! {"$and": all.collect::<Vec<_>>()}
        };
        match self.0.as_slice() {
            [way] => branch(way),
            ways => doc! {"$or": ways.iter().map(branch).collect::<Vec<_>>()},
        }
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
            Way::PullRequest { repo, number: pr, url } => {
                either(Field::PrNumber, number(*pr), of(repo));
                links(repo, url).into_iter().for_each(|url| either(Field::PrUrl, url.into(), of_none()));
            }
            Way::Issue { repo, number: issue, url } => {
                either(Field::IssueNumber, number(*issue), of(repo));
                links(repo, url).into_iter().for_each(|url| either(Field::IssueUrl, url.into(), of_none()));
            }
            Way::Branch { repo, branch } | Way::CheckedBranch { repo, branch } => {
                either(Field::GithubBranch, branch.into(), of(repo))
            }
            Way::Named { ids: tasks, .. } => {
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

fn created_by(users: &[UserId]) -> Document {
    doc! {"createdBy": is_one_of(users.iter().flat_map(|user| names(user.as_str())).collect())}
}

/// In which of [`COUNTED`] a task is counted, as an expression: 0, 1, 2.
pub(super) fn counted_as() -> Document {
    let is = |status: Status<'_>| doc! {"$eq": ["$status", status.as_str()]};
    let branches = [
        doc! {"case": {"$ne": [{"$type": "$status"}, "string"]}, "then": 0},
        doc! {"case": is(Status::Merged), "then": 1},
        doc! {"case": is(Status::Failed), "then": 2},
    ];
    doc! {"$switch": {"branches": branches.to_vec(), "default": 0}}
}

/// By the number that [`counted_as`] gives.
pub(super) const COUNTED: [StatusClass; 3] =
    [StatusClass::Active, StatusClass::Completed, StatusClass::Failed];
