//! Compares JSON values by their meaning.

use serde_json::{Map, Number, Value};

/// Returns whether two objects mean the same. The order of keys does not matter, and `1` is the same number as `1.0`,
/// because a producer or a store may write a number in another form when it sends it again.
pub(super) fn same_map(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same_value(value, other)))
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_map(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
        }
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (a, b) => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    let integer = |n: &Number| n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_compared_by_their_meaning() {
        let equal = [
            (json!(1), json!(1.0)),
            (json!({"a": 1, "b": [{"c": 0.0}]}), json!({"b": [{"c": -0.0}], "a": 1.0})),
            (json!(u64::MAX), json!(u64::MAX)),
        ];
        for (a, b) in equal {
            assert!(same_value(&a, &b) && same_value(&b, &a), "{a} {b}");
        }
        let different = [
            (json!(1), json!("1")),
            (json!([1, 2]), json!([2, 1])),
            (json!([1]), json!([1, 1])),
            (json!({"a": null}), json!({})),
            (json!({"a": null}), json!({"b": null})),
            (json!(u64::MAX), json!(u64::MAX - 1)),
            (json!(i64::MIN), json!(i64::MIN + 1)),
            (json!(false), json!(null)),
        ];
        for (a, b) in different {
            assert!(!same_value(&a, &b) && !same_value(&b, &a), "{a} {b}");
        }
    }
}
