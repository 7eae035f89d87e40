//! Identifiers as types, so that a user id can't be passed where an organisation id is expected.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde::{Serialize, Serializer};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns `None` for the empty string, which is not an id.
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
    /// A user: the token's user claim, a task's `createdBy`.
    UserId
);
id!(
    /// An organisation: the token's org claim, a task's `orgId`.
    OrgId
);

/// A task's `_id` as text, whatever its type in the store. Two ids are equal when their texts are.
///
/// A store may have two documents whose ids have the same text, such as the number 42 and the text "42". The store says
/// which of them it means by [`TaskId::of_kind`], and [`TaskId::is_same_document`] distinguishes them.
#[derive(Clone)]
pub struct TaskId {
    text: Arc<str>,
    /// 0 means that only the text is known, as in a request of a client.
    kind: u8,
}

impl TaskId {
    /// A client can't join a task with a longer id.
    pub const MAX_BYTES: usize = 256;
    /// Kinds that every store and every release knows.
    pub const TEXT: u8 = 1;
    pub const OBJECT_ID: u8 = 5;

    /// Returns `None` for the empty string, which is not an id.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self { text: text.into(), kind: 0 })
    }

    /// Reads the id of a document. Returns `None` for an id that a client can't ask for.
    pub fn of_document(text: &str) -> Option<Self> {
        let is_usable = text.len() <= Self::MAX_BYTES && !text.chars().any(char::is_control);
        Self::parse(text).filter(|_| is_usable)
    }

    /// The same text as the id of a document whose id has this kind of type. Each store numbers its kinds from 1.
    pub fn of_kind(self, kind: u8) -> Self {
        Self { kind, ..self }
    }

    pub fn kind(&self) -> u8 {
        self.kind
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns false only if the ids are known to belong to two documents.
    pub fn is_same_document(&self, other: &Self) -> bool {
        self.text == other.text && (self.kind == other.kind || self.kind == 0 || other.kind == 0)
    }
}

impl PartialEq for TaskId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TaskId {}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for TaskId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_id_is_usable_only_if_a_client_can_ask_for_it() {
        for usable in ["t", "65a1b2c3d4e5f60718293a4b", "a/b c?", "\u{1f980}", &"x".repeat(256)] {
            assert!(TaskId::of_document(usable).is_some(), "{usable}");
        }
        for unusable in ["", "a\u{0}", "a\nb", "\u{7f}", "\u{85}", &"x".repeat(257), &"\u{e9}".repeat(129)] {
            assert!(TaskId::of_document(unusable).is_none(), "{unusable}");
        }
    }

    #[test]
    fn ids_with_the_same_text_are_different_documents_if_their_known_kinds_differ() {
        let id = TaskId::parse("42").expect("an id");
        let (text, number) = (id.clone().of_kind(1), id.clone().of_kind(2));
        assert!(text == number && !text.is_same_document(&number));
        assert!(id.is_same_document(&text) && number.is_same_document(&id));
        assert!(!TaskId::parse("43").expect("an id").is_same_document(&id));
    }
}
