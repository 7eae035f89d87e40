//! What a verified token says.

use crate::task::Viewer;

use super::UnixTime;

/// Somebody whose token has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Decides what it may see.
    pub viewer: Viewer,
    /// For `creatorName` of tasks that it creates.
    pub name: Option<String>,
    /// What it may do beyond that, as the token lists it.
    pub scopes: Vec<String>,
    /// None: the token does not say.
    pub issued_at: Option<UnixTime>,
    /// From this moment on the session is over.
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
