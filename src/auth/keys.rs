//! The keys that tokens are checked with.

use std::sync::Arc;

use super::{AuthError, FetchedKeys, Key, jws::Jws};

/// Either one configured key, or the keys that were fetched last from a key server.
#[derive(Clone, Debug)]
pub enum Keys {
    Configured(Key),
    Fetched(Arc<FetchedKeys>),
}

impl Keys {
    /// Returns false while no key is known, so that every token is refused.
    pub fn are_known(&self) -> bool {
        match self {
            Self::Configured(_) => true,
            Self::Fetched(keys) => !keys.keys().is_empty(),
        }
    }

    pub(super) fn accept(&self, jws: &Jws<'_>) -> Result<(), AuthError> {
        match self {
            Self::Configured(key) if key.algorithm() != jws.algorithm => Err(WRONG_ALGORITHM),
            Self::Configured(key) if key.accepts(jws.message.as_bytes(), jws.signature) => Ok(()),
            Self::Configured(_) => Err(WRONG_SIGNATURE),
            Self::Fetched(keys) => keys.accept(jws),
        }
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self::Configured(key)
    }
}

pub(super) const WRONG_ALGORITHM: AuthError =
    AuthError::Unauthorized("the token's alg does not match the key");
pub(super) const WRONG_SIGNATURE: AuthError = AuthError::Unauthorized("the token's signature is wrong");
