//! Filters and projections: which documents are meant, and which of their fields are read.

use mongodb::bson::{Bson, Document, doc, oid::ObjectId};

use crate::{
    github::{Repository, Search, Way},
    store::TaskFilter,
    task::{Access, DefaultOrg, Field, OrgId, TaskId, UserId, Viewer},
};

/// What an id's text may stand for in a document: the text itself, or the ObjectId that it is the hex of.
pub(super) fn ids(text: &str) -> Vec<Bson> {
    let object_id = is_hex(text).then(|| ObjectId::parse_str(text).ok()).flatten().map(Bson::ObjectId);
    object_id.into_iter().chain([Bson::String(text.to_owned())]).collect()
}

/// Whether the text is how an ObjectId is written.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn by_id(id: &TaskId) -> Document {
    by_any_id(std::slice::from_ref(id))
}

pub(super) fn by_any_id(tasks: &[TaskId]) -> Document {
    let named: Vec<Bson> = tasks.iter().flat_map(|id| ids(id.as_str())).collect();
    doc! {"_id": {"$in": named}}
}

/// What `Access::allows` says, as filters.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    /// Created by the viewers.
    own: Document,
    /// Public in the viewer's organisation.
    org: Option<Document>,
}

impl Visible {
    pub(super) fn to(viewer: &Viewer, default_org: &DefaultOrg) -> Self {
        Self::of(std::slice::from_ref(&viewer.user), viewer.org.as_ref(), default_org)
    }

    /// What any of some users of one organisation sees.
    pub(super) fn of(users: &[UserId], org: Option<&OrgId>, default_org: &DefaultOrg) -> Self {
        let org = org.map(|org| {
            let mut named = ids(org.as_str());
            if default_org.0.as_ref() == Some(org) {
                named.extend([Bson::Null, Bson::String(String::new())]);
            }
            doc! {"orgId": {"$in": named}, "isPrivate": {"$in": [null, false]}}
        });
        Self { own: created_by(users), org }
    }

    /// All of it.
    pub(super) fn any(&self) -> Document {
        match &self.org {
            Some(org) => doc! {"$or": [org.clone(), self.own.clone()]},
            None => self.own.clone(),
        }
    }

    /// All of it that meets `conditions` and one of the `alternatives`. With an `$or` at the top, each way to see
    /// a task and each alternative scans its own index.
    pub(super) fn any_of(&self, conditions: &[Document], alternatives: &[Document]) -> Document {
        let ways = self.org.iter().chain([&self.own]);
        let branches: Vec<Document> = ways
            .flat_map(|way| alternatives.iter().map(move |alternative| (way, alternative)))
            .map(|(way, alternative)| {
                let both = [way.clone(), alternative.clone()];
                doc! {"$and": both.into_iter().chain(conditions.iter().cloned()).collect::<Vec<_>>()}
            })
            .collect();
        doc! {"$or": branches}
    }

    /// What the whole organisation sees too.
    pub(super) fn shared(&self) -> Option<Document> {
        self.org.clone()
    }

    /// What only the viewer's being its creator shows.
    pub(super) fn only_own(&self) -> Document {
        match &self.org {
            Some(org) => doc! {"$and": [self.own.clone(), {"$nor": [org.clone()]}]},
            None => self.own.clone(),
        }
    }
}

/// The conditions of a list's filter.
pub(super) fn narrowed(filter: &TaskFilter) -> Vec<Document> {
    let status = filter.status.as_ref().map(|status| doc! {"status": status});
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
            Way::Named { ids: tasks, .. } => named.extend(tasks.iter().flat_map(|id| ids(id.as_str()))),
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
    let named: Vec<Bson> = users.iter().flat_map(|user| ids(user.as_str())).collect();
    doc! {"createdBy": {"$in": named}}
}
