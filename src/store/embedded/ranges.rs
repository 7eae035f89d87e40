//! Computes which ranges of the index contain a task. This module does no I/O: the tables are in `index.rs`.

use super::record::{self, Document};
use crate::{
    github,
    store::query::created_at,
    task::{NamedOrg, OrgId, StatusClass, Task, UserId},
};

/// A set of tasks that are listed together, ordered by age. `creator` and `status` restrict it further.
///
/// Ranges depend only on the documents. A setting decides which organisation the tasks without an organisation belong to.
/// They therefore have their own range, and each read decides whether its viewer sees that range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range<'a> {
    /// The tasks of one organisation that are not private. `None` as `org` stands for the tasks that name no organisation. A
    /// task whose organisation can't be read is in neither.
    Public { org: Option<&'a str>, creator: Option<&'a str>, status: Option<&'a str> },
    /// All tasks of one creator.
    Own { creator: &'a str, status: Option<&'a str> },
}

/// The key of a range in the index: the kind, then its three texts.
pub(super) type RangeKey<'a> = (u8, &'a str, &'a str, &'a str);

impl<'a> Range<'a> {
    pub(super) fn key(self) -> RangeKey<'a> {
        const OWN: u8 = 4;
        const WITH_CREATOR: u8 = 2;
        const WITH_STATUS: u8 = 1;
        // Organisations and users have names that are not empty; a status may be the empty text.
        let (kind, scope, creator, status) = match self {
            Self::Public { org, creator, status } => {
                let kind = creator.map_or(0, |_| WITH_CREATOR);
                (kind, org.unwrap_or_default(), creator.unwrap_or_default(), status)
            }
            Self::Own { creator, status } => (OWN, creator, "", status),
        };
        (kind | status.map_or(0, |_| WITH_STATUS), scope, creator, status.unwrap_or_default())
    }
}

/// The organisation in which a task is public, according to its document.
#[derive(Clone, Debug, PartialEq)]
enum Public {
    No,
    /// The task is public in this organisation. `None` stands for the default one.
    In(Option<OrgId>),
}

/// The properties of a task that the index depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Indexed {
    pub(super) id: String,
    /// The sort key of lists. A task without a usable `createdAt` counts as older than all others.
    pub(super) created_at: Option<i64>,
    creator: Option<UserId>,
    public: Public,
    status: String,
    pub(super) class: StatusClass,
    /// The texts by which GitHub's deliveries find the task.
    pub(super) lookups: Vec<String>,
    pub(super) is_open: bool,
}

impl Indexed {
    /// Reads the properties of the task that is stored under `key`. Returns `None` if the document has another id: such a task
    /// can't be joined.
    pub(super) fn of(key: &str, task: &Task, document: &Document) -> Option<Self> {
        (task.id.as_str() == key).then(|| Self {
            id: key.to_owned(),
            created_at: created_at(task),
            creator: task.access.creator.clone(),
            public: match record::named_org(document) {
                _ if task.access.private => Public::No,
                NamedOrg::Unknown => Public::No,
                NamedOrg::Default => Public::In(None),
                NamedOrg::Org(org) => Public::In(Some(org)),
            },
            status: task.status().as_str().to_owned(),
            class: task.status().class(),
            lookups: github::lookups(task),
            is_open: github::is_open(task),
        })
    }

    /// The ranges that list the task.
    pub(super) fn listed(&self) -> Vec<Range<'_>> {
        let mut ranges = Vec::with_capacity(6);
        for range in self.counted() {
            let status = Some(self.status.as_str());
            ranges.extend([
                range,
                match range {
                    Range::Public { org, creator, .. } => Range::Public { org, creator, status },
                    Range::Own { creator, .. } => Range::Own { creator, status },
                },
            ]);
        }
        ranges
    }

    /// The ranges that count the task.
    pub(super) fn counted(&self) -> Vec<Range<'_>> {
        let creator = self.creator.as_ref().map(|user| user.as_str());
        let mut ranges = Vec::with_capacity(3);
        if let Public::In(org) = &self.public {
            let org = org.as_ref().map(|org| org.as_str());
            ranges.push(Range::Public { org, creator: None, status: None });
            if creator.is_some() {
                ranges.push(Range::Public { org, creator, status: None });
            }
        }
        ranges.extend(creator.map(|creator| Range::Own { creator, status: None }));
        ranges
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::task::DefaultOrg;

    #[test]
    fn a_task_with_an_invalid_organisation_is_public_in_no_organisation() {
        let counted = |fields: Value| {
            let mut document = Document::from_iter([("_id".to_owned(), "t".into())]);
            document.extend(fields.as_object().expect("fields").clone());
            let task = record::task(document.clone(), &DefaultOrg(OrgId::parse("acme"))).expect("a task");
            let indexed = Indexed::of("t", &task, &document).expect("indexed");
            indexed.counted().into_iter().map(|range| format!("{:?}", range.key())).collect::<Vec<_>>()
        };
        for odd in [json!(7), json!(true), json!(["acme"]), json!({"a": 1})] {
            assert_eq!(
                counted(json!({"orgId": odd, "createdBy": "alice"})),
                [r#"(4, "alice", "", "")"#],
                "{odd}"
            );
            assert_eq!(counted(json!({"orgId": odd})), [""; 0], "{odd}");
        }
        for none in [json!(null), json!("")] {
            assert_eq!(counted(json!({"orgId": none})), [r#"(0, "", "", "")"#], "{none}");
        }
        assert_eq!(counted(json!({"orgId": "acme"})), [r#"(0, "acme", "", "")"#]);
        assert_eq!(counted(json!({"orgId": "acme", "isPrivate": 0})), [""; 0]);
    }

    #[test]
    fn no_two_ranges_have_the_same_key() {
        let texts = [None, Some("a"), Some("b")];
        let statuses = [None, Some(""), Some("a"), Some("b")];
        let mut keys = Vec::new();
        for (org, status) in texts.iter().flat_map(|org| statuses.map(|status| (*org, status))) {
            keys.extend(texts.map(|creator| Range::Public { org, creator, status }.key()));
            keys.extend(org.map(|creator| Range::Own { creator, status }.key()));
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), count), (44, 44));
    }
}
