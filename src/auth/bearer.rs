//! Reads a bearer token from the `Authorization` header, and removes the word `Bearer` from a token.

use http::{HeaderMap, header};

const SCHEME: &str = "bearer";

/// The token of the `Authorization: Bearer` header. Two `Authorization` headers give `None`, because they could name
/// two users.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    after_scheme(value.to_str().ok()?)
}

/// Removes the scheme from a text that should be only a token. Many clients send the whole value of their
/// `Authorization` header.
pub fn without_scheme(text: &str) -> &str {
    after_scheme(text).unwrap_or(text)
}

/// The text after `Bearer`. Upper and lower case are equal, and spaces and tabs around the token are ignored.
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
    fn the_scheme_is_removed_from_a_token() {
        for text in ["a.b.c", "Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", " Bearer \t a.b.c  "] {
            assert_eq!(without_scheme(text), "a.b.c", "{text}");
        }
        for text in
            ["", "Bearer", "Bearer ", "Bearera.b.c", "Basic a.b.c", " a.b.c", "Bearer\na.b.c", "a.b.c Bearer"]
        {
            assert_eq!(without_scheme(text), text, "not a scheme and a token");
        }
        assert_eq!(without_scheme("Bearer a b"), "a b", "this is not a token");
        assert_eq!(without_scheme("Bearer Bearer a"), "Bearer a", "this is not a token");
    }

    #[test]
    fn exactly_one_header_with_the_scheme_is_accepted() {
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
