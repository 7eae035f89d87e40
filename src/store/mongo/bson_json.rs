//! Converts BSON to JSON and back. The JSON is the same as `JSON.stringify` of a document that Mongoose reads with `lean()`.

use base64::prelude::*;
use mongodb::bson::{
    Bson, DateTime, Document, RawArray, RawBson, RawBsonRef, RawDocument, raw::RawElement, spec::ElementType,
};
use serde_json::{Map, Number, Value};

use crate::task::Timestamp;

/// Deeper values become null. MongoDB itself allows about 180 levels.
const MAX_DEPTH: usize = 200;
/// Doubles up to this number represent whole numbers exactly. JavaScript prints them without a fraction.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Converts as much of the document as is readable. No content makes this function fail.
pub(super) fn to_json(document: &RawDocument) -> Map<String, Value> {
    object(document, 0)
}

/// Does not interpret extended JSON: `{"$oid": …}` from a client stays an object.
pub(super) fn to_bson(value: Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(flag),
        Value::Number(number) => number_to_bson(&number),
        Value::String(text) => Bson::String(text),
        Value::Array(items) => Bson::Array(items.into_iter().map(to_bson).collect()),
        Value::Object(map) => {
            Bson::Document(map.into_iter().map(|(key, value)| (key, to_bson(value))).collect::<Document>())
        }
    }
}

pub(super) fn time_to_bson(time: Timestamp) -> Bson {
    Bson::DateTime(DateTime::from_millis(time.millis()))
}

fn number_to_bson(number: &Number) -> Bson {
    match number.as_i64() {
        Some(whole) => i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32),
        None => number.as_f64().map_or(Bson::Null, Bson::Double),
    }
}

fn object(document: &RawDocument, depth: usize) -> Map<String, Value> {
    fields_at(document, depth).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn fields_at(document: &RawDocument, depth: usize) -> impl Iterator<Item = (&str, Value)> {
    let elements = document.iter_elements().map_while(Result::ok);
    elements.map(move |element| (element.key().as_str(), value(&element, depth)))
}

fn items(array: &RawArray, depth: usize) -> Vec<Value> {
    array.iter_elements().map_while(Result::ok).map(|element| value(&element, depth)).collect()
}

pub(super) fn value(element: &RawElement<'_>, depth: usize) -> Value {
    match element.value() {
        Ok(value) => convert(value, depth),
        Err(_) if matches!(element.element_type(), ElementType::String | ElementType::Symbol) => {
            match element.value_utf8_lossy() {
                Ok(RawBson::String(text) | RawBson::Symbol(text)) => Value::String(text),
                _ => Value::Null,
            }
        }
        Err(_) => Value::Null,
    }
}

fn convert(value: RawBsonRef<'_>, depth: usize) -> Value {
    match value {
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) | RawBsonRef::JavaScriptCode(text) => text.into(),
        RawBsonRef::Boolean(flag) => flag.into(),
        RawBsonRef::Int32(number) => number.into(),
        RawBsonRef::Int64(number) => number.into(),
        RawBsonRef::Double(number) if number.fract() == 0.0 && number.abs() <= MAX_SAFE => {
            (number as i64).into()
        }
        RawBsonRef::Double(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        RawBsonRef::ObjectId(id) => id.to_hex().into(),
        RawBsonRef::DateTime(time) => Timestamp::from_millis(time.timestamp_millis())
            .map_or(Value::Null, |time| time.to_string().into()),
        RawBsonRef::Decimal128(number) => number.to_string().into(),
        RawBsonRef::Binary(binary) => BASE64_STANDARD.encode(binary.bytes).into(),
        RawBsonRef::Timestamp(time) => {
            (u64::from(time.time) << 32 | u64::from(time.increment)).to_string().into()
        }
        RawBsonRef::RegularExpression(regex) => {
            format!("/{}/{}", regex.pattern.as_str(), regex.options.as_str()).into()
        }
        RawBsonRef::JavaScriptCodeWithScope(code) => code.code.into(),
        RawBsonRef::Document(_) | RawBsonRef::Array(_) if depth >= MAX_DEPTH => Value::Null,
        RawBsonRef::Document(document) => Value::Object(object(document, depth + 1)),
        RawBsonRef::Array(array) => Value::Array(items(array, depth + 1)),
        RawBsonRef::Null
        | RawBsonRef::Undefined
        | RawBsonRef::MinKey
        | RawBsonRef::MaxKey
        | RawBsonRef::DbPointer(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{
        Binary, Decimal128, RawDocumentBuf, Regex, Timestamp as ClusterTime, cstr, doc, oid::ObjectId,
        spec::BinarySubtype,
    };
    use serde_json::json;

    fn read(document: Document) -> Value {
        Value::Object(to_json(&RawDocumentBuf::try_from(&document).expect("encodes")))
    }

    #[test]
    fn every_type_is_converted_as_in_javascript() {
        let id = ObjectId::parse_str("65a1b2c3d4e5f60718293a4b").expect("valid");
        let document = doc! {
            "id": id, "date": DateTime::from_millis(1_700_000_000_123), "far": DateTime::MAX,
            "int": 7, "long": i64::MAX, "whole": 42.0, "real": 0.5, "nan": f64::NAN, "inf": f64::INFINITY,
            "decimal": "1.50".parse::<Decimal128>().expect("valid"),
            "binary": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 255] },
            "time": ClusterTime { time: 1, increment: 2 },
            "regex": Regex { pattern: cstr!("a").into(), options: cstr!("i").into() },
            "symbol": Bson::Symbol("s".into()), "code": Bson::JavaScriptCode("f()".into()),
            "undefined": Bson::Undefined, "min": Bson::MinKey, "max": Bson::MaxKey, "null": Bson::Null,
            "nested": {"list": [1, {"a": true}]},
        };
        assert_eq!(
            read(document),
            json!({
                "id": "65a1b2c3d4e5f60718293a4b", "date": "2023-11-14T22:13:20.123Z", "far": null,
                "int": 7, "long": i64::MAX, "whole": 42, "real": 0.5, "nan": null, "inf": null,
                "decimal": "1.50", "binary": "AQL/", "time": "4294967298", "regex": "/a/i",
                "symbol": "s", "code": "f()", "undefined": null, "min": null, "max": null, "null": null,
                "nested": {"list": [1, {"a": true}]},
            })
        );
    }

    #[test]
    fn deep_documents_and_invalid_utf8_are_converted() {
        let mut deep = vec![5, 0, 0, 0, 0];
        for _ in 0..5_000 {
            let size = u32::try_from(deep.len() + 8).expect("small").to_le_bytes();
            deep = [&size, &b"\x03d\0"[..], &deep, &[0]].concat();
        }
        let mut value = Value::Object(to_json(&RawDocumentBuf::from_bytes(deep).expect("is a document")));
        let mut depth = 0;
        while let Some(inner) = value.get_mut("d").map(Value::take) {
            (value, depth) = (inner, depth + 1);
        }
        assert_eq!((value, depth), (Value::Null, MAX_DEPTH + 1));
        let mut bytes = RawDocumentBuf::try_from(&doc! {"a": "xyz", "b": 1}).expect("encodes").into_bytes();
        let place = bytes.windows(3).position(|window| window == b"xyz").expect("is there");
        bytes[place] = 0xff;
        let broken = RawDocumentBuf::from_bytes(bytes).expect("is a document");
        assert_eq!(Value::Object(to_json(&broken)), json!({"a": "\u{fffd}yz", "b": 1}));
    }

    #[test]
    fn json_of_a_client_is_never_read_as_extended_json() {
        let sent = json!({"a": {"$oid": "65a1b2c3d4e5f60718293a4b"}, "n": [1, 5_000_000_000_i64, 1.5, null]});
        let Bson::Document(document) = to_bson(sent.clone()) else { panic!("an object is a document") };
        assert_eq!(read(document), sent);
    }
}
