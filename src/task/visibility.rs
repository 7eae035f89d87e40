//! The rules that decide which users see a task and may write it.

use serde_json::Value;

use super::{DefaultOrg, Fields, OrgId, UserId};

/// The properties of a task that decide who sees it: its creator, and all members of its organisation unless it is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub creator: Option<UserId>,
    pub org: Option<OrgId>,
    pub private: bool,
}

/// The organisation that a document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedOrg {
    /// The document names none, so the default organisation applies.
    Default,
    Org(OrgId),
    /// The value is not a text, so the organisation is unknown, and no organisation sees the task.
    Unknown,
}

/// The part of a user's identity that decides which tasks the user may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub user: UserId,
    pub org: Option<OrgId>,
}

impl Access {
    /// The fields of a document that [`Access::from_document`] reads. An invalid value makes a task less visible, never more:
    /// an invalid creator or organisation counts as none, and an invalid `isPrivate` as private.
    pub const FIELDS: [&str; 3] = ["createdBy", "orgId", "isPrivate"];

    pub fn from_document<K: AsRef<str>>(document: &Fields<K>, default_org: &DefaultOrg) -> Self {
        let [creator, org, private] = Self::FIELDS.map(|name| document.get(name));
        Self {
            creator: creator.and_then(Value::as_str).and_then(UserId::parse),
            org: match NamedOrg::of(org) {
                NamedOrg::Default => default_org.0.clone(),
                NamedOrg::Org(org) => Some(org),
                NamedOrg::Unknown => None,
            },
            private: !matches!(private, None | Some(Value::Null | Value::Bool(false))),
        }
    }

    pub fn allows(&self, viewer: &Viewer) -> bool {
        self.creator.as_ref() == Some(&viewer.user) || !self.is_only_its_creators(viewer.org.as_ref())
    }

    /// Returns whether, among the users of an organisation (or the users without one), at most the creator sees the task.
    pub fn is_only_its_creators(&self, org: Option<&OrgId>) -> bool {
        self.public_org().is_none() || self.public_org() != org
    }

    /// Returns whether a user with the scope `tasks:write` may change the task. Such a user may change all tasks of its
    /// organisation, private ones as well, and every task that it may see. A user without an organisation may change all tasks.
    pub fn writable_by(&self, writer: &Viewer) -> bool {
        writer.org.is_none() || writer.org == self.org || self.allows(writer)
    }

    /// The organisation whose members all see the task.
    pub fn public_org(&self) -> Option<&OrgId> {
        if self.private { None } else { self.org.as_ref() }
    }
}

impl NamedOrg {
    /// Reads the value that a document has for its organisation.
    pub fn of(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Default,
            Some(Value::String(name)) => OrgId::parse(name).map_or(Self::Default, Self::Org),
            Some(_) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invalid_value_makes_a_task_less_visible() {
        let default_org = DefaultOrg(OrgId::parse("acme"));
        let read = |name: &str, value: Value| {
            Access::from_document(&[(name, value)].into_iter().collect(), &default_org)
        };
        for odd in [json!(7), json!(true), json!(["acme"]), json!({"a": 1})] {
            assert_eq!(read("orgId", odd.clone()).org, None, "{odd}");
            assert_eq!(read("createdBy", odd.clone()).creator, None, "{odd}");
            assert!(read("isPrivate", odd.clone()).private, "{odd}");
        }
        for nothing in [json!(null), json!("")] {
            assert_eq!(read("orgId", nothing.clone()).org, OrgId::parse("acme"));
            assert_eq!(read("createdBy", nothing).creator, None);
        }
        assert!(!read("isPrivate", json!(null)).private && !read("isPrivate", json!(false)).private);
        assert!(read("isPrivate", json!("")).private && read("isPrivate", json!(0)).private);
    }
}
