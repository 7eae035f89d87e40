//! A type of events that the registry knows: its schema file, read and compiled.

use std::{fmt, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{SchemaError, messages};
use crate::activity::{EventProblem, EventType, Rule, TypeError};

/// The only `$schema` that a file may name.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// The key in a schema file for what JSON Schema cannot say.
const EXTENSION: &str = "x-taskcast";
/// The most memory of one compiled regular expression, and of its cache.
const PATTERN_BYTES: usize = 1024 * 1024;
/// The most problems that are reported for one event.
const MAX_PROBLEMS: usize = 20;

/// What a schema file is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TypeName {
    Type(EventType),
    /// All types of this prefix (with its separator) and one more segment: `hook.` contains `hook.stop`.
    Family(Arc<str>),
}

/// A type, or a family of types, with its schema.
pub struct KnownType {
    pub name: TypeName,
    /// Types with a high volume match only patterns that name them, and are kept for a shorter time.
    pub high_volume: bool,
    /// The text of the schema file, as JSON.
    pub schema: Value,
    rules: Vec<Rule>,
    validator: Validator,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extension {
    #[serde(rename = "type")]
    event_type: Option<String>,
    family: Option<String>,
    #[serde(default)]
    high_volume: bool,
    #[serde(default)]
    live: Vec<Value>,
}

impl KnownType {
    /// Reads a schema file. The file name is only for errors.
    pub(super) fn read(file: &str, text: &str) -> Result<Self, SchemaError> {
        let error = |message: String| SchemaError { file: file.to_owned(), message };
        let schema: Value =
            serde_json::from_str(text).map_err(|e| error(format!("the file is not JSON: {e}")))?;
        let Value::Object(map) = &schema else {
            return Err(error("the file must be an object with a JSON Schema".to_owned()));
        };
        let extension = map.get(EXTENSION).ok_or_else(|| {
            error(format!(
                "{EXTENSION} is missing; it must name the type, for example {{\"type\": \"build.done\"}}"
            ))
        })?;
        let extension = Extension::deserialize(extension).map_err(|e| error(format!("{EXTENSION}: {e}")))?;
        let name = type_name(extension.event_type, extension.family).map_err(error)?;
        let rules = read_rules(map, &extension.live).map_err(error)?;
        let validator = compile(&schema).map_err(error)?;
        Ok(Self { name, high_volume: extension.high_volume, schema, rules, validator })
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The problems of a payload, at most 20.
    pub(super) fn check(&self, payload: &Value) -> Vec<EventProblem> {
        if self.validator.is_valid(payload) {
            return Vec::new();
        }
        self.validator
            .iter_errors(payload)
            .take(MAX_PROBLEMS)
            .map(|error| messages::problem(&error))
            .collect()
    }
}

fn type_name(event_type: Option<String>, family: Option<String>) -> Result<TypeName, String> {
    let parse = |text: &str, shown: &str| {
        EventType::parse(text).map_err(|error| match error {
            TypeError::Reserved => {
                format!("{EXTENSION}: {shown:?} is reserved for the gateway's own messages")
            }
            error => format!("{EXTENSION}: {shown:?} is not an event type; it {error}"),
        })
    };
    match (event_type, family) {
        (Some(text), None) => Ok(TypeName::Type(parse(&text, &text)?)),
        (None, Some(prefix)) => {
            parse(&format!("{prefix}x"), &prefix)?;
            if !prefix.ends_with(['.', ':']) {
                return Err(format!("{EXTENSION}: family must end with \".\" or \":\""));
            }
            Ok(TypeName::Family(prefix.into()))
        }
        _ => Err(format!("{EXTENSION} needs either type or family")),
    }
}

fn read_rules(schema: &Map<String, Value>, rules: &[Value]) -> Result<Vec<Rule>, String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let is_field = |field: &str| properties.is_some_and(|properties| properties.contains_key(field));
    let rule = |(index, value)| {
        Rule::parse(value, is_field).map_err(|error| format!("{EXTENSION}.live[{index}]: {error}"))
    };
    rules.iter().enumerate().map(rule).collect()
}

/// Compiles a schema once. Nothing outside of the file is read. Regular expressions are matched in linear time.
fn compile(schema: &Value) -> Result<Validator, String> {
    match schema.get("$schema").map(Value::as_str) {
        None => {}
        Some(Some(draft)) if draft.trim_end_matches('#') == DRAFT => {}
        Some(_) => return Err(format!("$schema must be {DRAFT}, or absent")),
    }
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
    jsonschema::options()
        .offline()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(patterns)
        .should_validate_formats(false)
        .build(schema)
        .map_err(|error| format!("the schema is invalid: {error}"))
}

/// The form in `GET /api/activity/types`.
impl Serialize for KnownType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.name {
            TypeName::Type(event_type) => map.serialize_entry("type", event_type)?,
            TypeName::Family(prefix) => map.serialize_entry("family", prefix)?,
        }
        map.serialize_entry("highVolume", &self.high_volume)?;
        map.serialize_entry("schema", &self.schema)?;
        map.end()
    }
}

impl fmt::Debug for KnownType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownType")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
