//! The identity that a verified token contains.

use crate::task::Viewer;

use super::UnixTime;

/// A user whose token has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Decides what the user may see.
    pub viewer: Viewer,
    /// Becomes the `creatorName` of tasks that the user creates.
    pub name: Option<String>,
    /// Additional permissions, as the token lists them.
    pub scopes: Vec<String>,
    /// `None` means that the token has no `iat`.
    pub issued_at: Option<UnixTime>,
    /// The session ends at this time.
    pub expires_at: UnixTime,
}

impl Identity {
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }

    pub fn is_expired(&self, now: UnixTime) -> bool {
        now >= self.expires_at
    }
}
