//! The content of a write in a canonical form. Two requests have the same content exactly when their canonical forms are equal.

use serde_json::{Map, Value, json};

use super::{Answers, Assigned, NewTask, Target, TaskPatch};

impl NewTask {
    /// An absent field and a field with its default value are the same content.
    pub fn content(&self) -> Value {
        let Self { title, description, is_private, repo } = self;
        json!([title, description, is_private, repo])
    }
}

impl Answers {
    pub fn content(&self) -> Value {
        json!(self.0)
    }
}

impl TaskPatch {
    /// The order of the fields does not matter, and neither does the name that the request used for a field with two names.
    pub fn content(&self) -> Value {
        let assigned = self.assignments.iter().map(|(target, value)| {
            let name = match target {
                Target::Hidden(name) => name,
                Target::Field(field) => field.document_names().first().unwrap_or(&""),
            };
            let value = match value {
                Assigned::Json(value) => json!({"json": value}),
                Assigned::Time(time) => json!({"time": time.to_string()}),
                Assigned::Id(id) => json!({"id": id}),
                Assigned::Removed => Value::Null,
            };
            ((*name).to_owned(), value)
        });
        let mut content = json!({"fields": assigned.collect::<Map<_, _>>(), "event": self.event});
        content.sort_all_objects();
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(body: Value) -> Value {
        TaskPatch::parse(body).expect("a patch").content()
    }

    #[test]
    fn the_order_and_the_names_of_fields_are_no_content() {
        let event = json!({"eventType": "e", "payload": {"b": 1, "a": {"d": 2, "c": 3}}});
        let same = json!({"payload": {"a": {"c": 3, "d": 2}, "b": 1}, "eventType": "e"});
        let one = patch(json!({"status": "coding", "title": "t", "event": event}));
        assert_eq!(
            one.to_string(),
            patch(json!({"event": same, "llmSummary": "t", "status": "coding"})).to_string()
        );
        for other in [
            json!({"status": "coding", "title": "u", "event": event}),
            json!({"status": "coding", "title": "t"}),
            json!({"status": "coding", "title": "t", "event": event, "repo": null}),
        ] {
            assert_ne!(one.to_string(), patch(other).to_string());
        }
    }

    #[test]
    fn a_default_value_is_the_same_as_an_absent_field() {
        let content = |body: Value| NewTask::parse(body).expect("a task").content();
        let one = content(json!({"title": "t"}));
        assert_eq!(
            one,
            content(json!({"isPrivate": false, "repo": null, "description": null, "title": "t"}))
        );
        assert_ne!(one, content(json!({"title": "t", "isPrivate": true})));
        assert_ne!(one, content(json!({"title": "t", "repo": "o/r"})));
        assert_ne!(one, content(json!({"title": "t", "description": "o/r"})));
    }
}
