use serde_json::json;

use super::*;
use crate::task::Viewer;

fn report(value: Value) -> Report {
    Report::parse(value).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn event(value: Value, org: Option<&str>) -> Event {
    let origin = Origin { org: org.and_then(OrgId::parse), reported_by: UserId::parse("u") };
    let timestamp = Timestamp::from_millis(1_767_221_517_699).expect("in range");
    Event::new(report(value), origin, Position::change(7, 1).with_index(2), timestamp)
}

fn full() -> Value {
    json!({"type": "command:progress", "payload": {"story_key": "1-2", "task_id": "t1", "score": 0.1}, "projectId": "web",
        "source": "orchestrator", "to": "v", "id": "k"})
}

#[test]
fn clients_get_exactly_the_fields_of_the_contract() {
    let json = serde_json::to_string(&ClientForm(&event(full(), Some("acme")))).expect("serialises");
    assert_eq!(
        json,
        r#"{"type":"command:progress","payload":{"story_key":"1-2","task_id":"t1","score":0.1},"timestamp":1767221517699,"eventId":"0000000000000007-000001-000002","projectId":"web","source":"orchestrator"}"#
    );
    let bare = event(json!({"type": "a", "payload": {}}), None);
    let keys = serde_json::to_value(ClientForm(&bare)).expect("serialises");
    let keys: Vec<&String> = keys.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["type", "payload", "timestamp", "eventId"]);
}

#[test]
fn a_stored_event_is_read_as_the_same_event() {
    for event in [event(full(), Some("acme")), event(json!({"type": "a", "payload": {}}), None)] {
        let json = serde_json::to_string(&event).expect("serialises");
        assert_eq!(serde_json::from_str::<Event>(&json).expect("reads"), event);
    }
    let whole = serde_json::to_value(event(full(), Some("acme"))).expect("serialises");
    for (key, wrong) in
        [("orgId", json!("")), ("to", json!("")), ("type", json!("A")), ("timestamp", json!(i64::MAX))]
    {
        let mut damaged = whole.clone();
        damaged[key] = wrong;
        assert!(serde_json::from_value::<Event>(damaged).is_err(), "{key}");
    }
}

#[test]
fn the_task_is_a_usable_text() {
    let task = |id: Value| event(json!({"type": "a", "payload": {"task_id": id}}), None).task;
    assert_eq!(task(json!("t1")), TaskId::parse("t1"));
    for unusable in [json!(1), json!(""), json!("a\n"), json!("x".repeat(257)), json!(null)] {
        assert_eq!(task(unusable), None);
    }
}

#[test]
fn the_same_key_with_another_content_is_a_conflict() {
    let stored = event(full(), Some("acme"));
    assert!(stored.is_duplicate(&report(full())));
    let mut other_form = full();
    other_form["payload"] = json!({"score": 0.1, "task_id": "t1", "story_key": "1-2"});
    assert!(stored.is_duplicate(&report(other_form)));
    for (key, value) in [
        ("type", json!("command:start")),
        ("payload", json!({"story_key": "1-2", "task_id": "t1"})),
        ("projectId", json!("api")),
        ("source", json!(null)),
        ("to", json!("w")),
    ] {
        let mut changed = full();
        changed[key] = value;
        assert!(!stored.is_duplicate(&report(changed)), "{key}");
    }
    let secret = json!({"type": "a", "payload": {"token": "t"}});
    assert!(event(secret.clone(), None).is_duplicate(&report(secret)), "the stored payload is redacted");
}

#[test]
fn a_notice_is_for_one_user_of_the_same_organisation() {
    let notice = event(full(), Some("acme"));
    let v = |org: Option<&str>| Viewer {
        user: UserId::parse("v").expect("an id"),
        org: org.and_then(OrgId::parse),
    };
    let audience = notice.audience(None).expect("an audience");
    assert!(
        audience.allows(&v(Some("acme")))
            && !audience.allows(&v(Some("other")))
            && !audience.allows(&v(None))
    );
    let private = Access { creator: UserId::parse("u"), org: OrgId::parse("acme"), private: true };
    assert_eq!(notice.audience(Some(&private)), None, "v may not see the task");
}

#[test]
fn an_event_about_a_private_task_is_its_creators() {
    let mut about = full();
    about["to"] = json!(null);
    let about = event(about, Some("acme"));
    let access = |private| Access { creator: UserId::parse("c"), org: OrgId::parse("acme"), private };
    let org = OrgId::parse("acme").expect("an id");
    assert_eq!(about.audience(None), Some(Audience::Org(org.clone())));
    assert_eq!(about.audience(Some(&access(false))), Some(Audience::Org(org.clone())));
    let creator = Audience::User { user: UserId::parse("c").expect("an id"), org: Some(org) };
    assert_eq!(about.audience(Some(&access(true))), Some(creator));
}
