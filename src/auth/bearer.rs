//! A token in a header, and a token that brings the word `Bearer` with it.

use http::{HeaderMap, header};

const SCHEME: &str = "bearer";

/// The token of the one `Authorization: Bearer` header; two headers could mean two people.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    after_scheme(value.to_str().ok()?)
}

/// The token of a text that should be nothing but a token. Many clients give the whole value of their `Authorization` header.
pub fn without_scheme(text: &str) -> &str {
    after_scheme(text).unwrap_or(text)
}

/// What follows `Bearer`, in any case and with any spaces and tabs around it.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, token) = text.trim_matches(is_blank).split_once(is_blank)?;
    let token = token.trim_matches(is_blank);
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_scheme_is_taken_off_a_token() {
        for text in ["a.b.c", "Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", " Bearer \t a.b.c  "] {
            assert_eq!(without_scheme(text), "a.b.c", "{text}");
        }
        for text in
            ["", "Bearer", "Bearer ", "Bearera.b.c", "Basic a.b.c", " a.b.c", "Bearer\na.b.c", "a.b.c Bearer"]
        {
            assert_eq!(without_scheme(text), text, "not a scheme and a token");
        }
        assert_eq!(without_scheme("Bearer a b"), "a b", "which is no token");
        assert_eq!(without_scheme("Bearer Bearer a"), "Bearer a", "which is no token");
    }

    #[test]
    fn a_header_needs_the_scheme_and_is_there_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        for (value, token) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("bEARER \t a.b.c ", Some("a.b.c")),
            ("Bearer", None),
            ("Bearer ", None),
            ("a.b.c", None),
            ("Basic a.b.c", None),
        ] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), token, "{value}");
        }
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        assert_eq!(bearer(&headers), None);
    }
}
