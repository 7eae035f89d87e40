use mongodb::bson::{RawBson, Regex, cstr, doc};
use proptest::prelude::*;

use super::*;

fn text_of(value: &Bson) -> Option<String> {
    let raw = RawBson::try_from(value.clone()).expect("encodes");
    id(raw.as_raw_bson_ref()).map(|id| id.to_string())
}

/// Compares ids as MongoDB does.
fn same(a: &Bson, b: &Bson) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn number(value: &Bson) -> Option<String> {
    match value {
        Bson::Int32(number) => Some(number.to_string()),
        Bson::Int64(number) => Some(number.to_string()),
        Bson::Double(number) => Some(numbers::double(*number)),
        Bson::Decimal128(number) => Some(numbers::decimal(*number)),
        _ => None,
    }
}

fn scalars() -> impl Strategy<Value = Bson> {
    let binary = |subtype: u8| {
        prop::collection::vec(any::<u8>(), 0..200)
            .prop_map(move |bytes| Bson::Binary(Binary { subtype: subtype.into(), bytes }))
    };
    let uuid = |subtype: u8| {
        any::<[u8; 16]>()
            .prop_map(move |bytes| Bson::Binary(Binary { subtype: subtype.into(), bytes: bytes.to_vec() }))
    };
    let decimal = (any::<i64>(), -40..40_i32)
        .prop_map(|(digits, exponent)| format!("{digits}E{exponent}").parse().expect("a decimal"));
    prop_oneof![
        "\\PC{1,40}".prop_map(Bson::String),
        "[0-9a-f]{24}".prop_map(Bson::String),
        "-?[0-9]{1,30}(\\.[0-9]{1,3})?".prop_map(Bson::String),
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>().prop_map(Bson::Double),
        (-1_000_000..1_000_000_i64).prop_map(|n| Bson::Double(n as f64 / 64.0)),
        decimal.prop_map(Bson::Decimal128),
        any::<bool>().prop_map(Bson::Boolean),
        any::<i64>().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        (Timestamp::FIRST..=Timestamp::LAST).prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        any::<(u32, u32)>().prop_map(|(time, increment)| Bson::Timestamp(ClusterTime { time, increment })),
        any::<u8>().prop_flat_map(binary),
        prop_oneof![Just(3), Just(4), Just(0)].prop_flat_map(uuid),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn an_id_is_a_candidate_of_its_text(value in scalars()) {
        if let Some(text) = text_of(&value) {
            let found = candidates(&text);
            prop_assert!(found.iter().any(|candidate| same(candidate, &value)), "{value:?}: {text}: {found:?}");
            for candidate in found {
                prop_assert_eq!(text_of(&candidate), Some(text.clone()));
            }
        } else {
            prop_assert!(matches!(value, Bson::Binary(_)), "{value:?}");
        }
    }

    #[test]
    fn every_candidate_of_a_text_has_this_text(text in "\\PC{0,40}|[-+0-9.eENaInfity]{1,12}|(binary|timestamp|date):[0-9:A-Za-z]{0,12}") {
        for candidate in candidates(&text) {
            prop_assert_eq!(text_of(&candidate), Some(text.clone()));
        }
    }
}

#[test]
fn each_type_has_its_text() {
    let bytes: Vec<u8> = (0..16).collect();
    let binary = |subtype| Bson::Binary(Binary { subtype, bytes: bytes.clone() });
    let cases: [(Bson, &str); 13] = [
        ("t".into(), "t"),
        (ObjectId::parse_str("65a1b2c3d4e5f60718293a4b").expect("valid").into(), "65a1b2c3d4e5f60718293a4b"),
        (42.into(), "42"),
        (42_i64.into(), "42"),
        (42.0.into(), "42"),
        (Bson::Decimal128("42.0".parse().expect("a decimal")), "42"),
        (0.5.into(), "0.5"),
        (binary(BinarySubtype::Uuid), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (binary(BinarySubtype::UuidOld), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (binary(BinarySubtype::Generic), "binary:0:AAECAwQFBgcICQoLDA0ODw"),
        (Bson::DateTime(DateTime::from_millis(0)), "1970-01-01T00:00:00.000Z"),
        (true.into(), "true"),
        (Bson::Timestamp(ClusterTime { time: 7, increment: 2 }), "timestamp:7:2"),
    ];
    for (value, text) in cases {
        assert_eq!(text_of(&value).as_deref(), Some(text), "{value:?}");
    }
    let regex = Regex { pattern: cstr!("a").into(), options: cstr!("").into() };
    for odd in [
        Bson::Null,
        Bson::Undefined,
        Bson::MinKey,
        Bson::MaxKey,
        "".into(),
        "a\nb".into(),
        "x".repeat(257).into(),
        Bson::Symbol("s".into()),
        Bson::JavaScriptCode("f()".into()),
        Bson::RegularExpression(regex),
        doc! {"a": 1}.into(),
        Bson::Array(vec![1.into()]),
    ] {
        assert_eq!(text_of(&odd), None, "{odd:?}");
    }
}
