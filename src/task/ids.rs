//! Identifiers as types, so that a user can't be passed where an organisation is meant.

use std::{fmt, sync::Arc};

use serde::Serialize;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// None for the empty string, which names nobody.
            pub fn parse(text: &str) -> Option<Self> {
                (!text.is_empty()).then(|| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

id!(
    /// A task's `_id` as a string: an ObjectId's 24 hex digits, or the string itself.
    TaskId
);
id!(
    /// A user: the token's user claim, a task's `createdBy`.
    UserId
);
id!(
    /// An organisation: the token's org claim, a task's `orgId`.
    OrgId
);
