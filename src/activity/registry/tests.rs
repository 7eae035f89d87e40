use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;

/// The table of the contract: types, whether they have a high volume, and the fields of the payload. A field without a type
/// is a text, `?` means optional, `[]` a list of texts, and `a/b` one of these words.
const TABLE: &[(&str, bool, &str)] = &[
    ("batch:start", false, "batch_id:integer max_cycles:integer|all"),
    ("batch:end", false, "batch_id:integer cycles_completed:integer status:completed/stopped/error"),
    ("cycle:start", false, "cycle_number:integer story_keys:[]"),
    ("cycle:end", false, "cycle_number:integer completed_stories:[]"),
    ("command:start", false, "story_key command task_id"),
    ("command:progress", false, "story_key command task_id message"),
    ("command:end", false, "story_key command task_id status metrics?:{duration_ms?:number,tokens?:number}"),
    ("story:status", false, "story_key old_status new_status"),
    ("context:create context:refresh context:complete", false, "story_key? message?"),
    ("error", false, "type message context?:object"),
    ("story_created", false, "story_id title priority? agent? status?"),
    ("task_completed", false, "task_id story_id? agent? result?"),
    ("agent_alert", false, "agent_id message severity?:info/warning/critical"),
    ("task.created task.updated task.closed", false, "task_id project_id title? status? reason?"),
    ("task.expanded", false, "task_id project_id subtask_ids:[]"),
    (
        "worktree.created worktree.updated worktree.merged worktree.deleted",
        false,
        "worktree_id project_id branch? path? task_id? session_id?",
    ),
    ("mcp.server_connected mcp.server_disconnected", false, "server_name tool_count?:integer error?"),
    ("mcp.tool_called", true, "server_name tool_name session_id? duration_ms?:number ok?:boolean"),
    (
        "agent.started agent.updated agent.completed agent.failed agent.stopped",
        false,
        "agent_id name? session_id? task_id? message? error?",
    ),
    ("agent.message", false, "from to_agent text?"),
    (
        "autonomous.started autonomous.iteration autonomous.stopped",
        false,
        "loop_id iteration?:integer goal? reason?",
    ),
    (
        "session.started session.updated session.ended",
        false,
        "session_id agent_id? project_id? title? reason?",
    ),
    ("session.message", true, "session_id message_id role delta? content? done?:boolean"),
    ("hook.", true, "session_id agent_id? tool_name? ok?:boolean duration_ms?:number"),
    ("stats.updated", false, "*:number"),
    ("memory.updated memory.deleted", false, "key size?:number"),
    ("quality.reported", false, "check status:pass/warn/fail score?:number message?"),
    ("log.line", true, "level:trace/debug/info/warn/error message source?"),
    ("artifact.changed", false, "path change:created/modified/removed"),
];

fn built_in() -> Registry {
    Registry::built_in(UnknownTypes::Reject).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The fields of a schema, in the words of the table.
fn fields(schema: &Value) -> BTreeSet<String> {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let mut fields: BTreeSet<String> = properties
        .iter()
        .map(|(name, field)| {
            let mark = if required.contains(&json!(name)) { "" } else { "?" };
            let kind = kind(field);
            if kind == "string" { format!("{name}{mark}") } else { format!("{name}{mark}:{kind}") }
        })
        .collect();
    match &schema["additionalProperties"] {
        Value::Bool(true) => {}
        other => assert!(fields.insert(format!("*:{}", kind(other)))),
    }
    fields
}

fn kind(field: &Value) -> String {
    let word = |value: &Value| value.as_str().expect("a text").to_owned();
    if let Some(Value::Array(options)) = field.get("enum") {
        return options.iter().map(word).collect::<Vec<_>>().join("/");
    }
    if let Some(Value::Array(forms)) = field.get("anyOf") {
        let form = |form: &Value| form.get("const").map(word).unwrap_or_else(|| kind(form));
        return forms.iter().map(form).collect::<Vec<_>>().join("|");
    }
    match field["type"].as_str().expect("a type") {
        "array" => {
            assert_eq!(field["items"], json!({"type": "string"}));
            "[]".to_owned()
        }
        "object" if field.get("properties").is_some() => {
            format!("{{{}}}", fields(field).into_iter().collect::<Vec<_>>().join(","))
        }
        simple => simple.to_owned(),
    }
}

#[test]
fn the_schema_files_agree_with_the_table_of_the_contract() {
    let expected: BTreeMap<&str, (bool, BTreeSet<String>)> = TABLE
        .iter()
        .flat_map(|(types, high_volume, fields)| {
            let fields: BTreeSet<String> = fields.split(' ').map(str::to_owned).collect();
            types.split(' ').map(move |name| (name, (*high_volume, fields.clone())))
        })
        .collect();
    let registry = built_in();
    let found: BTreeMap<&str, (bool, BTreeSet<String>)> = registry
        .types()
        .into_iter()
        .map(|known| (known.name.text(), (known.high_volume, fields(&known.schema))))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn each_file_has_the_name_of_its_type() {
    for (file, text) in built_in::FILES {
        let known = KnownType::read(file, text).unwrap_or_else(|error| panic!("{error}"));
        let name = known.name.text().trim_end_matches('.').replace(':', "-");
        assert_eq!(file, format!("{name}.json"));
        assert_eq!(known.schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(known.schema["type"], "object");
        let title = known.schema["title"].as_str().expect("a title");
        assert_eq!(title.trim_end_matches("<name>"), known.name.text());
        assert!(known.schema["description"].as_str().is_some_and(|text| text.ends_with('.')));
    }
}

fn check(registry: &Registry, event_type: &str, payload: Value) -> Vec<(String, String)> {
    let report = Report::parse(json!({"type": event_type, "payload": payload})).expect("a report");
    let problems = registry.check(&report).err().unwrap_or_default();
    problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
}

#[test]
fn problems_name_the_place_and_what_to_do() {
    let registry = built_in();
    let cases = [
        ("batch:start", json!({"max_cycles": "all"}), "/payload/batch_id", "is required"),
        (
            "batch:start",
            json!({"batch_id": "7", "max_cycles": 1}),
            "/payload/batch_id",
            "must be of the type integer",
        ),
        (
            "batch:start",
            json!({"batch_id": 7, "max_cycles": "x"}),
            "/payload/max_cycles",
            "must fit one of the forms",
        ),
        (
            "batch:end",
            json!({"batch_id": 7, "cycles_completed": 1, "status": "x"}),
            "/payload/status",
            "must be one of \"completed\", \"stopped\", \"error\"",
        ),
        (
            "cycle:start",
            json!({"cycle_number": 1, "story_keys": ["a", 1]}),
            "/payload/story_keys/1",
            "must be of the type string",
        ),
        ("stats.updated", json!({"a/b": "x"}), "/payload/a~1b", "must be of the type number"),
        ("hook.stop", json!({}), "/payload/session_id", "is required"),
        ("no.such_type", json!({}), "/type", "is not a known event type"),
        ("hook.a.b", json!({"session_id": "s"}), "/type", "is not a known event type"),
        ("hook", json!({"session_id": "s"}), "/type", "is not a known event type"),
    ];
    for (event_type, payload, path, message) in cases {
        let problems = check(&registry, event_type, payload);
        let [(found, text)] = &problems[..] else { panic!("{event_type}: {problems:?}") };
        assert_eq!(found, path);
        assert!(text.starts_with(message), "{text}");
    }
    assert_eq!(check(&registry, "batch:start", json!({"batch_id": 7, "max_cycles": 3, "more": [1]})), []);
    assert_eq!(check(&registry, "hook.stop", json!({"session_id": "s"})), []);
}

#[test]
fn problems_never_repeat_the_payload() {
    let canary = "canary-7f3a";
    let file = json!({"x-taskcast": {"type": "odd"}, "properties": {
        "a": {"enum": ["x"]}, "b": {"const": 1}, "c": {"maxLength": 2}, "d": {"pattern": "^x"}, "e": {"not": {}},
        "f": {"oneOf": [{"type": "number"}]}, "g": {"type": ["number", "null"]}, "h": false, "i": {"contains": false},
        "j": {"additionalProperties": false}, "k": {"propertyNames": {"maxLength": 2}}, "l": {"uniqueItems": true},
        "m": {"dependentRequired": {canary: ["n"]}}, "o": {"unevaluatedProperties": false}, "p": {"format": "date"},
        "q": {"$ref": "#/$defs/q"}, "r": {"maximum": 2}, "s": {"if": true, "then": false}}, "$defs": {"q": {"minLength": 99}}});
    let registry =
        Registry::with_files(UnknownTypes::Reject, [("odd.json", &*file.to_string())]).expect("a schema");
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h", "q", "s"];
    let mut payload: Map<String, Value> =
        texts.into_iter().map(|name| (name.to_owned(), json!(canary))).collect();
    payload.insert("i".to_owned(), json!([canary]));
    payload.insert("l".to_owned(), json!([canary, canary]));
    payload.insert("r".to_owned(), json!(73_737_373));
    for name in ["j", "k", "m", "o"] {
        payload.insert(name.to_owned(), json!({canary: canary}));
    }
    let problems = check(&registry, "odd", payload.into());
    assert!(problems.len() > 15, "{problems:?}");
    for (path, message) in problems {
        assert!(!message.contains(canary) && !message.contains("7373"), "{path}: {message}");
    }
}

#[test]
fn at_most_20_problems_are_reported() {
    let many: Map<String, Value> = (0..50).map(|n| (format!("k{n}"), json!("x"))).collect();
    assert_eq!(check(&built_in(), "stats.updated", many.into()).len(), 20);
}

#[test]
fn unknown_types_can_be_accepted() {
    let registry = Registry::built_in(UnknownTypes::Accept).expect("built-in");
    assert_eq!(check(&registry, "no.such_type", json!({"a": 1})), []);
    let unknown = EventType::parse("no.such_type").expect("a type");
    assert!(registry.rules(&unknown).is_empty() && !registry.is_high_volume(&unknown));
    assert_eq!(check(&registry, "batch:start", json!({})).len(), 2);
}

#[test]
fn an_operators_file_adds_or_replaces_a_type() {
    let build = r#"{"x-taskcast": {"type": "build.done", "highVolume": true, "live": [{"kind": "build", "id": "build"}]},
        "properties": {"build": {"type": "integer"}}, "required": ["build"]}"#;
    let start = r#"{"x-taskcast": {"type": "batch:start"}, "required": ["name"]}"#;
    let family = r#"{"x-taskcast": {"family": "acme:"}, "required": ["x"]}"#;
    let registry = Registry::with_files(
        UnknownTypes::Reject,
        [("build.json", build), ("start.json", start), ("acme.json", family)],
    )
    .expect("schemas");
    assert_eq!(check(&registry, "build.done", json!({"build": 1})), []);
    assert_eq!(check(&registry, "build.done", json!({})).len(), 1);
    assert!(registry.is_high_volume(&EventType::parse("build.done").expect("a type")));
    assert_eq!(check(&registry, "batch:start", json!({"name": 1})), []);
    assert!(registry.rules(&EventType::parse("batch:start").expect("a type")).is_empty());
    assert_eq!(check(&registry, "acme:anything", json!({"x": 1})), []);
    assert_eq!(registry.types().len(), built_in().types().len() + 2);
    let listed = serde_json::to_value(registry.types()).expect("serialises");
    let listed: Vec<_> = listed.as_array().expect("a list").iter().collect();
    assert!(listed.iter().any(|entry| entry["type"] == "build.done"
        && entry["highVolume"] == true
        && entry["schema"]["required"] == json!(["build"])));
    assert!(listed.iter().any(|entry| entry["family"] == "hook." && entry["highVolume"] == true));
}

#[test]
fn faults_of_schema_files_say_what_to_change() {
    let cases = [
        ("{", "the file is not JSON"),
        ("[]", "must be an object"),
        (r#"{"type": "object"}"#, "x-taskcast is missing"),
        (r#"{"x-taskcast": {}}"#, "needs either type or family"),
        (r#"{"x-taskcast": {"type": "a", "family": "a."}}"#, "needs either type or family"),
        (r#"{"x-taskcast": {"type": "A"}}"#, "is not an event type"),
        (r#"{"x-taskcast": {"type": "task:created"}}"#, "is reserved"),
        (r#"{"x-taskcast": {"family": "live:"}}"#, "is reserved"),
        (r#"{"x-taskcast": {"family": "a"}}"#, "family must end with"),
        (r#"{"x-taskcast": {"type": "a", "typo": 1}}"#, "unknown field `typo`"),
        (r#"{"x-taskcast": {"type": "a"}, "type": "nonsense"}"#, "the schema is invalid"),
        (r#"{"x-taskcast": {"type": "a"}, "required": 7}"#, "the schema is invalid"),
        (
            r#"{"x-taskcast": {"type": "a"}, "$schema": "http://json-schema.org/draft-07/schema#"}"#,
            "$schema must be",
        ),
        (
            r#"{"x-taskcast": {"type": "a"}, "$ref": "https://example.com/schema.json"}"#,
            "the schema is invalid",
        ),
        (r#"{"x-taskcast": {"type": "a"}, "$ref": "file:///etc/passwd"}"#, "the schema is invalid"),
        (r##"{"x-taskcast": {"type": "a"}, "$ref": "#/$defs/none"}"##, "the schema is invalid"),
        (r#"{"x-taskcast": {"type": "a"}, "properties": {"b": {"pattern": "(a"}}}"#, "the schema is invalid"),
        // Only engines that can hang have this.
        (
            r#"{"x-taskcast": {"type": "a"}, "properties": {"b": {"pattern": "(?=a)(b+)\\1"}}}"#,
            "the schema is invalid",
        ),
        (
            r#"{"x-taskcast": {"type": "a", "live": [{"kind": "x", "id": "b"}]}}"#,
            "x-taskcast.live[0]: the field \"b\"",
        ),
        (r#"{"x-taskcast": {"type": "a", "live": [{"kind": "x"}]}}"#, "x-taskcast.live[0]: a rule needs"),
    ];
    for (text, message) in cases {
        let errors = Registry::with_files(UnknownTypes::Reject, [("own.json", text)]).expect_err(text);
        let [error] = &errors[..] else { panic!("{errors:?}") };
        assert!(
            error.to_string().starts_with("own.json: ") && error.message.contains(message),
            "{text}: {error}"
        );
    }
}

#[test]
fn all_faults_are_reported_and_a_type_has_one_file() {
    let a = r#"{"x-taskcast": {"type": "a"}}"#;
    let errors = Registry::with_files(UnknownTypes::Reject, [("1.json", a), ("2.json", a), ("3.json", "{")])
        .expect_err("errors");
    let texts: Vec<String> = errors.iter().map(SchemaError::to_string).collect();
    assert!(
        texts[0].starts_with("2.json: 1.json has a schema for the same type")
            && texts[1].starts_with("3.json: "),
        "{texts:?}"
    );
}

/// Each of these would take years, or overflow the stack, in a careless validator.
#[test]
fn an_operators_schema_cannot_hang_the_server() {
    let loops = r##"{"x-taskcast": {"type": "loops"}, "$ref": "#"}"##;
    let deep = r##"{"x-taskcast": {"type": "deep"}, "type": "object", "additionalProperties": {"anyOf": [{"$ref": "#"}, {"type": "number"}]}}"##;
    let slow = r#"{"x-taskcast": {"type": "slow"}, "properties": {"a": {"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}}}"#;
    let files = [("loops.json", loops), ("deep.json", deep), ("slow.json", slow)];
    let registry = Registry::with_files(UnknownTypes::Reject, files).expect("schemas");
    let nested = (0..30).fold(json!({"a": "x"}), |inner, _| json!({"a": inner, "b": 1}));
    assert_eq!(check(&registry, "loops", nested.clone()), []);
    assert!(!check(&registry, "deep", nested).is_empty());
    assert_eq!(check(&registry, "slow", json!({"a": "a".repeat(30_000)})).len(), 1);
}

/// A row of the table in docs/activity.md.
fn row(known: &KnownType) -> String {
    let title = known.schema["title"].as_str().expect("a title");
    let volume = if known.high_volume { " (high volume)" } else { "" };
    let mut fields = described(&known.schema);
    if let Some(Value::String(kind)) = known.schema["additionalProperties"].get("type") {
        fields.push(format!("{kind}s by name"));
    }
    let kinds: Vec<String> = known.rules().iter().map(|rule| format!("`{}`", rule.kind())).collect();
    format!("| `{title}`{volume} | {} | {} |", fields.join(", "), kinds.join(", "))
}

fn described(schema: &Value) -> Vec<String> {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let words = |text: String| match text.as_str() {
        "[]" => " list of texts".to_owned(),
        "string" => String::new(),
        "integer|all" => " integer or `all`".to_owned(),
        text if text.contains('/') => format!(" `{}`", text.replace('/', "` or `")),
        text => format!(" {text}"),
    };
    properties
        .iter()
        .map(|(name, field)| {
            let mark = if required.contains(&json!(name)) { "" } else { "?" };
            match field.get("properties") {
                Some(_) => format!("`{name}`{mark} object with {}", described(field).join(" and ")),
                None => format!("`{name}`{mark}{}", words(kind(field))),
            }
        })
        .collect()
}

#[test]
fn the_documentation_has_exactly_the_known_types() {
    let page = include_str!("../../../docs/activity.md");
    let section = page.split("## Built-in types").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: BTreeSet<&str> =
        section.expect("the section").lines().filter(|line| line.starts_with("| `")).collect();
    let registry = built_in();
    let expected: BTreeSet<String> = registry.types().into_iter().map(row).collect();
    assert_eq!(rows, expected.iter().map(String::as_str).collect());
}

#[test]
fn the_example_of_an_own_type_in_the_documentation_works() {
    let page = include_str!("../../../docs/activity.md");
    let own = page.split("## Own types").nth(1).and_then(|rest| rest.split("```json").nth(1));
    let file = own.and_then(|rest| rest.split("```").next()).expect("the example");
    let registry = Registry::with_files(UnknownTypes::Reject, [("build.json", file)]).expect("a schema");
    assert_eq!(check(&registry, "build.done", json!({"build": 7, "result": "green"})), []);
    assert_eq!(check(&registry, "build.done", json!({"build": 7, "result": "blue"})).len(), 1);
    assert_eq!(registry.rules(&EventType::parse("build.done").expect("a type")).len(), 1);
}
