//! What holds for all events: entities are a function of the events in the order of positions, and of nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use proptest::{prelude::*, sample::Index};
use serde_json::Map;

use super::*;
use crate::activity::EventType;

static REGISTRY: LazyLock<Registry> = LazyLock::new(registry);

/// Types that begin no run, so that an entity has only one, and that no part of an entity depends on.
fn begins_no_run(event_type: &str) -> bool {
    let event_type = EventType::parse(event_type).expect("a type");
    REGISTRY.rules(&event_type).iter().all(|rule| rule.starts.is_none() && rule.part.is_none())
}

fn types() -> Vec<String> {
    let names = REGISTRY.types().into_iter().map(|known| known.name.text().to_owned());
    names.map(|name| if name.ends_with('.') { format!("{name}stop") } else { name }).collect()
}

/// A value that a schema allows, chosen by numbers.
fn value(schema: &Value, choice: u8) -> Value {
    if let Some(Value::Array(options)) = schema.get("enum") {
        return options[usize::from(choice) % options.len()].clone();
    }
    if schema.get("anyOf").is_some() {
        return if choice.is_multiple_of(2) { json!("all") } else { json!(choice) };
    }
    match schema["type"].as_str() {
        Some("string") => json!(["a", "b", "c"][usize::from(choice) % 3]),
        Some("integer") => json!(choice % 3),
        Some("number") => json!(f64::from(choice) / 7.0),
        Some("boolean") => json!(choice.is_multiple_of(2)),
        Some("array") => json!(vec!["a"; usize::from(choice) % 3]),
        _ => json!({"x": choice}),
    }
}

/// A payload that fits a type's schema, and sometimes a large field.
fn payload(event_type: &str, choices: &[u8]) -> Value {
    let event_type = EventType::parse(event_type).expect("a type");
    let schema = &REGISTRY.find(&event_type).expect("a known type").schema;
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let mut choices = choices.iter().copied().cycle();
    let mut next = || choices.next().unwrap_or_default();
    let mut payload = Map::new();
    for (name, field) in properties {
        let (is_given, choice) = (next(), next());
        if required.contains(&json!(name)) || is_given.is_multiple_of(2) {
            payload.insert(name.clone(), value(field, choice));
        }
    }
    if properties.is_empty() {
        payload.insert(format!("n{}", next() % 4), json!(next()));
    } else if next().is_multiple_of(8) {
        payload.insert("large".to_owned(), json!("x".repeat(4_000 + 100 * usize::from(next() % 4))));
    }
    payload.into()
}

type Sent = (Audience, Event);

/// Events in the order of their positions. Each time is later than the one before by one of these steps, in milliseconds.
fn events(
    types: Vec<String>,
    steps: std::ops::Range<i64>,
    projects: Vec<Option<&'static str>>,
) -> impl Strategy<Value = Vec<Sent>> {
    let event = (
        prop::sample::select(types),
        prop::sample::select(projects),
        prop::collection::vec(any::<u8>(), 16),
        prop_oneof![4 => 0..1_000_i64, 1 => steps],
        0..4_u8,
    );
    prop::collection::vec(event, 1..40).prop_map(|events| {
        let mut millis = T0;
        let numbered = events.into_iter().enumerate();
        numbered
            .map(|(index, (event_type, project, choices, step, audience))| {
                millis += step;
                let report = json!({"type": event_type, "payload": payload(&event_type, &choices), "projectId": project});
                let report = Report::parse(report).unwrap_or_else(|problems| panic!("{problems:?}"));
                assert_eq!(REGISTRY.check(&report), Ok(()), "{event_type}");
                let origin = Origin { org: Some(org()), reported_by: UserId::parse("u") };
                let position = Position::change(1 + index as u64 / 3, index as u32 % 3);
                let audience = match audience {
                    0 => own("u"),
                    1 => own("v"),
                    _ => Audience::Org(org()),
                };
                (audience, Event::new(report, origin, position, time(millis)))
            })
            .collect()
    })
}

fn all_events() -> impl Strategy<Value = Vec<Sent>> {
    events(types(), -1_000..2 * HOUR, vec![None, Some("p"), Some("q")])
}

fn apply(live: &mut LiveEntities, events: &[Sent]) -> Vec<LiveChange> {
    live.apply(&REGISTRY, events.iter().map(|(audience, event)| (audience.clone(), event)))
}

fn folded(events: &[Sent]) -> LiveEntities {
    let mut live = LiveEntities::default();
    apply(&mut live, events);
    live
}

/// Everything that a fold contains.
fn all_of(live: &LiveEntities) -> String {
    String::from_utf8(live.to_checkpoint().expect("serialises")).expect("text")
}

fn shown(live: &LiveEntities, viewer: &Viewer, now: i64) -> BTreeMap<EntityKey, Value> {
    let entities = live.entities(viewer, time(now));
    entities.map(|entity| (entity.key.clone(), serde_json::to_value(&entity).expect("serialises"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Pages may be read in any order of their events, and again, and may overlap.
    #[test]
    fn pages_that_are_shuffled_or_read_again_give_the_same_entities(
        events in all_events(),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
        back in prop::collection::vec(any::<Index>(), 8),
        seed: u64,
    ) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(events.len() + 1)).collect();
        ends.push(events.len());
        ends.sort_unstable();
        let (mut live, mut changes) = (LiveEntities::default(), Vec::new());
        for (turn, end) in ends.into_iter().enumerate() {
            let begin = back[turn].index(end + 1).min(events.iter().take_while(|(_, event)| event.position <= live.position()).count());
            let mut page = events[begin..end].to_vec();
            page.sort_by_key(|(_, event)| (event.position.time ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(event.position.ordinal));
            changes.extend(apply(&mut live, &page));
        }
        let mut at_once = LiveEntities::default();
        let expected = apply(&mut at_once, &events);
        prop_assert_eq!(all_of(&live), all_of(&at_once));
        prop_assert_eq!(changes, expected);
        prop_assert!(apply(&mut live, &events).is_empty());
    }

    /// A restarted node, also one whose checkpoint is older than every event that is still kept.
    #[test]
    fn a_checkpoint_and_the_later_events_give_the_same_entities(events in all_events(), cut: Index) {
        let cut = cut.index(events.len() + 1);
        let before = folded(&events[..cut]);
        let mut restored = LiveEntities::from_checkpoint(&before.to_checkpoint().expect("serialises")).expect("reads");
        prop_assert_eq!(all_of(&restored), all_of(&before));
        let mut kept = before.clone();
        prop_assert_eq!(apply(&mut restored, &events[cut..]), apply(&mut kept, &events[cut..]));
        prop_assert_eq!(all_of(&restored), all_of(&folded(&events)));
        prop_assert_eq!(restored.len(), kept.len());
    }

    /// A client that follows the changes has what a new client gets.
    #[test]
    fn the_changes_are_all_that_changed(events in all_events()) {
        let (viewer, mut live) = (member("u"), LiveEntities::default());
        let mut followed: BTreeMap<EntityKey, Value> = BTreeMap::new();
        // Before all events, nothing is stale and no time is over for the viewer; only the fold removes entities.
        let now = T0 - HOUR;
        for sent in &events {
            let changes = apply(&mut live, std::slice::from_ref(sent));
            let once: BTreeSet<_> = changes.iter().collect();
            prop_assert_eq!(once.len(), changes.len());
            for change in changes.into_iter().filter(|change| change.audience.allows(&viewer)) {
                match live.entity(&viewer, &change.key, time(now)) {
                    Some(entity) => {
                        followed.insert(change.key.clone(), serde_json::to_value(entity).expect("serialises"));
                    }
                    None => {
                        followed.remove(&change.key);
                    }
                }
            }
            prop_assert_eq!(&followed, &shown(&live, &viewer, now));
        }
    }

    /// A viewer learns nothing from events that it may not see. (If times went back, it could learn that a time was over.)
    #[test]
    fn events_of_others_change_nothing_that_a_viewer_sees(
        events in events(types(), 0..2 * HOUR, vec![None, Some("p"), Some("q")]),
    ) {
        let viewer = member("u");
        let visible: Vec<Sent> = events.iter().filter(|(audience, _)| audience.allows(&viewer)).cloned().collect();
        let last = events.iter().map(|(_, event)| event.timestamp.millis()).max().unwrap_or(T0);
        // At the time of the newest event, both folds hide what has expired, whenever they removed it.
        prop_assert_eq!(shown(&folded(&events), &viewer, last), shown(&folded(&visible), &viewer, last));
    }

    /// The copies of several audiences, merged, are what one audience would have.
    #[test]
    fn merged_audiences_are_like_one_audience(
        events in events(types().into_iter().filter(|name| begins_no_run(name)).collect(), -1_000..1_000, vec![Some("p"), Some("q")]),
    ) {
        let viewer = member("u");
        let small = |(audience, mut event): Sent| {
            event.payload.remove("large");
            (audience, event)
        };
        let visible: Vec<Sent> =
            events.into_iter().filter(|(audience, _)| audience.allows(&viewer)).map(small).collect();
        let public: Vec<Sent> = visible.iter().map(|(_, event)| (Audience::Org(org()), event.clone())).collect();
        prop_assert_eq!(shown(&folded(&visible), &viewer, T0), shown(&folded(&public), &viewer, T0));
    }
}
