//! Who sees a task.

use super::{OrgId, UserId};

/// What decides who sees a task: its creator, and everyone of its organisation unless it is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub creator: Option<UserId>,
    pub org: Option<OrgId>,
    pub private: bool,
}

/// Somebody who looks: the part of an identity that decides what it may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub user: UserId,
    pub org: Option<OrgId>,
}

impl Access {
    pub fn allows(&self, viewer: &Viewer) -> bool {
        self.creator.as_ref() == Some(&viewer.user)
            || self.public_org().is_some_and(|org| viewer.org.as_ref() == Some(org))
    }

    /// Which tasks a holder of the scope `tasks:write` may change: those of its organisation, the private ones
    /// too; without an organisation, all.
    pub fn writable_by(&self, writer: &Viewer) -> bool {
        writer.org.is_none() || writer.org == self.org || self.allows(writer)
    }

    /// The organisation that sees the task as a whole.
    pub fn public_org(&self) -> Option<&OrgId> {
        if self.private { None } else { self.org.as_ref() }
    }
}
