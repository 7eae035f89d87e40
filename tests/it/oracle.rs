//! The gateway's parser of packets is compared with socketioxide's, for valid, almost valid and arbitrary packets.

#[path = "oracle/compare.rs"]
mod compare;

use std::{fs, path::Path};

use compare::compare;
use proptest::{prelude::*, sample::Index};

fn seeds() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/client");
    let files = fs::read_dir(folder).expect("a folder");
    let seeds: Vec<String> =
        files.filter_map(|file| fs::read_to_string(file.expect("a file").path()).ok()).collect();
    assert!(seeds.len() > 10, "the seeds were not found");
    seeds
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just(r#"{"_placeholder":true,"num":0}"#.to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON", |number| number.is_finite()).prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-z\"\\\\é]{0,3}", inner), 0..4).prop_map(|members| {
                let members =
                    members.iter().map(|(name, value)| format!("{}:{value}", serde_json::json!(name)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// A packet in which each optional part is present or absent.
fn packet() -> impl Strategy<Value = String> {
    let attachments = prop_oneof![3 => Just(String::new()), 2 => "[0-9]{1,2}-", 1 => "[+-]?[0-9]{0,22}-"];
    let namespace = prop_oneof![
        4 => Just(String::new()),
        1 => Just("/,".to_owned()),
        1 => "/[a-zé?=/]{0,6},?",
    ];
    let id = prop_oneof![3 => Just(String::new()), 2 => "[0-9]{1,3}", 1 => "[0-9]{17,22}"];
    let event = (prop_oneof![4 => "[a-z:]{0,6}", 1 => any::<String>()], prop::collection::vec(json(), 0..3));
    let event = event.prop_map(|(name, args)| {
        let items: Vec<String> = [serde_json::json!(name).to_string()].into_iter().chain(args).collect();
        format!("[{}]", items.join(","))
    });
    let body = prop_oneof![4 => event, 1 => json(), 1 => Just(String::new())];
    ("[0-9é]", attachments, namespace, id, "[ \n]{0,2}", body, "[ \n\\]x]{0,2}").prop_map(
        |(kind, attachments, namespace, id, before, body, after)| {
            let attachments = if matches!(&*kind, "5" | "6") { attachments } else { String::new() };
            // A packet may have space in front of its JSON, or something after it, but not both.
            let (before, after) = match after.len() {
                0 => (before, after),
                _ => (String::new(), after),
            };
            format!("{kind}{attachments}{namespace}{id}{before}{body}{after}")
        },
    )
}

/// A packet with some characters replaced, removed or inserted.
fn mutated() -> impl Strategy<Value = String> {
    let valid = prop_oneof![packet(), proptest::sample::select(seeds())];
    let edits = prop::collection::vec((any::<Index>(), "[0-9\\[\\]{}\",:/+ \\\\aéu_-]|\\PC", 0..3u8), 0..5);
    (valid, edits).prop_map(|(text, edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (place, new, kind) in edits {
            let place = place.index(chars.len() + 1);
            if kind > 0 && place < chars.len() {
                chars.remove(place);
            }
            if kind < 2 {
                chars.splice(place..place, new.chars());
            }
        }
        chars.into_iter().collect()
    })
}

#[test]
fn both_parsers_agree_on_the_seeds() {
    seeds().iter().for_each(|seed| compare(seed.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn both_parsers_agree_on_packets(text in prop_oneof![packet(), mutated(), any::<String>()]) {
        compare(text.as_bytes());
    }
}
