//! Messages about payloads that do not fit their schema. They contain words of the schema, and never a value of the
//! payload.

use jsonschema::{
    ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;

use crate::activity::EventProblem;

/// A longer list of allowed values is cut.
const MAX_VALUES_CHARS: usize = 200;

pub(super) fn problem(error: &ValidationError<'_>) -> EventProblem {
    let mut path = format!("/payload{}", error.instance_path().as_str());
    if let Kind::Required { property: Value::String(name) } = error.kind() {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
    EventProblem::new(path, message(error.kind()))
}

fn message(kind: &Kind) -> String {
    match kind {
        Kind::Required { .. } => "is required".to_owned(),
        Kind::Type { kind: TypeKind::Single(expected) } => format!("must be of the type {expected}"),
        Kind::Type { kind: TypeKind::Multiple(expected) } => {
            let types: Vec<String> = expected.iter().map(|expected| expected.to_string()).collect();
            format!("must be of one of the types {}", types.join(", "))
        }
        Kind::Enum { options } => format!("must be one of {}", values(options)),
        Kind::Constant { expected_value } => format!("must be {}", values(expected_value)),
        Kind::AnyOf { .. } => "must fit one of the forms that the schema allows".to_owned(),
        Kind::OneOfNotValid { .. } | Kind::OneOfMultipleValid { .. } => {
            "must fit exactly one of the forms that the schema allows".to_owned()
        }
        Kind::Minimum { limit } => format!("must be at least {}", values(limit)),
        Kind::Maximum { limit } => format!("must be at most {}", values(limit)),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {}", values(limit)),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {}", values(limit)),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::UniqueItems => "must not have the same item twice".to_owned(),
        Kind::Pattern { .. } => "must match the pattern in the schema".to_owned(),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => {
            "has a field that the schema does not allow".to_owned()
        }
        Kind::FalseSchema => "is not allowed by the schema".to_owned(),
        other => format!("must fit the keyword {} in the schema", other.keyword()),
    }
}

/// Values of the schema as text: the items of a list, or one value.
fn values(value: &Value) -> String {
    let text = match value {
        Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX_VALUES_CHARS) {
        Some((end, _)) => format!("{}\u{2026}", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
