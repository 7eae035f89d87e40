//! Timeline entries: selects the fields of a payload that go into an entry, and limits their length.

use serde_json::{Map, Value};

/// The maximum number of characters from a comment or a review.
const MAX_REMARK: usize = 500;
const MAX_LINE: usize = 300;
pub(super) const MAX_URL: usize = 2_000;

/// The timeline entry of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub event_type: String,
    pub payload: Map<String, Value>,
}

impl Entry {
    pub(super) fn new(event_type: impl Into<String>) -> Self {
        Self { event_type: event_type.into(), payload: Map::new() }
    }

    pub(super) fn number(mut self, name: &str, number: u64) -> Self {
        self.payload.insert(name.to_owned(), number.into());
        self
    }

    /// Adds a line of text. An absent or blank text is left out.
    pub(super) fn line(self, name: &str, text: Option<&str>) -> Self {
        self.text(name, text, MAX_LINE)
    }

    pub(super) fn remark(self, name: &str, text: Option<&str>) -> Self {
        self.text(name, text, MAX_REMARK)
    }

    pub(super) fn link(mut self, name: &str, url: Option<&str>) -> Self {
        if let Some(url) = web_link(url) {
            self.payload.insert(name.to_owned(), url.into());
        }
        self
    }

    fn text(mut self, name: &str, text: Option<&str>, max: usize) -> Self {
        if let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) {
            self.payload.insert(name.to_owned(), clipped(text, max).into());
        }
        self
    }
}

/// The first `max` characters, followed by `…` if the text is longer.
pub(super) fn clipped(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Web pages turn the URL into a link, so only `http` and `https` URLs of limited length are accepted.
pub(super) fn web_link(url: Option<&str>) -> Option<String> {
    url.filter(|url| url.len() <= MAX_URL && (url.starts_with("https://") || url.starts_with("http://")))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_small_and_holds_only_links_to_web_pages() {
        let entry = Entry::new("x")
            .number("n", 7)
            .line("title", Some(&"ä".repeat(10_000)))
            .line("none", None)
            .line("blank", Some("  \n"))
            .remark("text", Some(" short "))
            .link("a", Some("javascript:alert(1)"))
            .link("b", Some("https://github.com/a/b"))
            .link("c", Some(&format!("https://{}", "x".repeat(MAX_URL))));
        let title = format!("{}…", "ä".repeat(MAX_LINE));
        let expected = json!({"n": 7, "title": title, "text": "short", "b": "https://github.com/a/b"});
        assert_eq!(Value::Object(entry.payload), expected);
    }
}
