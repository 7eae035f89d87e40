//! The registry of types: which types of events exist, the schema of each, and how their events change live entities.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

use super::{EventProblem, EventType, Report, Rule};

mod built_in;
mod known_type;
mod messages;
#[cfg(test)]
mod tests;

pub use known_type::{KnownType, TypeName};

/// What is wrong with a schema file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {message}")]
pub struct SchemaError {
    pub file: String,
    pub message: String,
}

/// What happens to events of types without a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownTypes {
    #[default]
    Reject,
    /// They are stored without a check of their payload. They change no live entity, and have no high volume.
    Accept,
}

/// All known types.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    types: HashMap<EventType, Arc<KnownType>>,
    families: HashMap<Arc<str>, Arc<KnownType>>,
    unknown: UnknownTypes,
}

impl Registry {
    /// The built-in types only.
    pub fn built_in(unknown: UnknownTypes) -> Result<Self, Vec<SchemaError>> {
        Self::with_files(unknown, [])
    }

    /// The built-in types, and those of an operator's schema files, which replace built-in ones. Each file is given as its
    /// name and its text. All faults are reported at once.
    pub fn with_files<'a>(
        unknown: UnknownTypes,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<SchemaError>> {
        let mut registry = Self { types: HashMap::new(), families: HashMap::new(), unknown };
        let mut errors = Vec::new();
        for (file, text) in built_in::FILES {
            match KnownType::read(file, text) {
                Ok(known) => registry.insert(known),
                Err(error) => errors.push(error),
            }
        }
        let mut added: HashMap<TypeName, &str> = HashMap::new();
        for (file, text) in files {
            let known = match KnownType::read(file, text) {
                Ok(known) => known,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            match added.insert(known.name.clone(), file) {
                Some(first) => errors.push(SchemaError {
                    file: file.to_owned(),
                    message: format!("{first} has a schema for the same type; keep only one of the files"),
                }),
                None => registry.insert(known),
            }
        }
        if errors.is_empty() { Ok(registry) } else { Err(errors) }
    }

    fn insert(&mut self, known: KnownType) {
        let known = Arc::new(known);
        match &known.name {
            TypeName::Type(event_type) => self.types.insert(event_type.clone(), known),
            TypeName::Family(prefix) => self.families.insert(Arc::clone(prefix), known),
        };
    }

    /// The schema of a type. A file for exactly this type has precedence over a family.
    pub fn find(&self, event_type: &EventType) -> Option<&KnownType> {
        let exact = || self.types.get(event_type);
        let family = || self.families.get(event_type.prefixes().next()?);
        exact().or_else(family).map(|known| &**known)
    }

    /// Checks a report: whether its type is known, and whether its payload fits the schema.
    pub fn check(&self, report: &Report) -> Result<(), Vec<EventProblem>> {
        self.check_payload(&report.event_type, &report.payload)
    }

    fn check_payload(
        &self,
        event_type: &EventType,
        payload: &Map<String, Value>,
    ) -> Result<(), Vec<EventProblem>> {
        let Some(known) = self.find(event_type) else {
            return match self.unknown {
                UnknownTypes::Accept => Ok(()),
                UnknownTypes::Reject => Err(vec![EventProblem::new(
                    "/type",
                    "is not a known event type; GET /api/activity/types lists those, and ACTIVITY_SCHEMAS adds others",
                )]),
            };
        };
        let problems = known.check(&Value::Object(payload.clone()));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    pub fn is_high_volume(&self, event_type: &EventType) -> bool {
        self.find(event_type).is_some_and(|known| known.high_volume)
    }

    /// How events of a type change live entities.
    pub fn rules(&self, event_type: &EventType) -> &[Rule] {
        self.find(event_type).map_or(&[], KnownType::rules)
    }

    /// All types and families with their schemas, ordered by name, for `GET /api/activity/types`.
    pub fn types(&self) -> Vec<&KnownType> {
        let mut known: Vec<&KnownType> =
            self.types.values().chain(self.families.values()).map(|known| &**known).collect();
        known.sort_by(|a, b| a.name.text().cmp(b.name.text()));
        known
    }
}

impl TypeName {
    /// The type, or the prefix of a family.
    pub fn text(&self) -> &str {
        match self {
            Self::Type(event_type) => event_type.as_str(),
            Self::Family(prefix) => prefix,
        }
    }
}
