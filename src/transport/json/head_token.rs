//! Finds the token in the headers of a request for `/ws`, and decides which subprotocol the answer names.

use http::{HeaderMap, HeaderValue, header};

use crate::auth::bearer;

/// The subprotocol that the server speaks.
const SUBPROTOCOL: &str = "taskcast.v1";
/// Pages cannot set headers, so they send their token as a subprotocol with this prefix.
const TOKEN_PREFIX: &str = "bearer.";

/// The token that the headers contain: `Authorization`, or else a subprotocol. `None` means that the client sends its token as its
/// first message.
pub(super) fn head_token(headers: &HeaderMap) -> Option<String> {
    if headers.contains_key(header::AUTHORIZATION) {
        // A header without a token, or with two, is refused like an invalid token.
        return Some(bearer(headers).unwrap_or_default().to_owned());
    }
    let mut tokens = offered(headers).filter_map(|name| name.strip_prefix(TOKEN_PREFIX));
    let (first, second) = (tokens.next()?, tokens.next());
    // Two tokens could name two users.
    Some(if second.is_some() { String::new() } else { first.to_owned() })
}

/// The subprotocol for the answer. It never names the token.
pub(super) fn chosen_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    offered(headers).any(|name| name == SUBPROTOCOL).then(|| HeaderValue::from_static(SUBPROTOCOL))
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const PROTOCOL: &str = "sec-websocket-protocol";

    #[test]
    fn the_token_is_a_header_or_a_subprotocol() {
        for (list, token) in [
            (&[][..], None),
            (&[(PROTOCOL, "taskcast.v1")][..], None),
            (&[(PROTOCOL, "taskcast.v1, bearer.a.b.c")][..], Some("a.b.c")),
            (&[(PROTOCOL, "bearer.a.b.c,taskcast.v1")][..], Some("a.b.c")),
            (&[(PROTOCOL, "taskcast.v1"), (PROTOCOL, "bearer.a.b.c")][..], Some("a.b.c")),
            (&[("authorization", "Bearer a.b.c")][..], Some("a.b.c")),
            (&[("authorization", "Bearer a.b.c"), (PROTOCOL, "bearer.d.e.f")][..], Some("a.b.c")),
        ] {
            assert_eq!(head_token(&headers(list)).as_deref(), token, "{list:?}");
        }
    }

    #[test]
    fn two_tokens_or_an_unusable_header_count_as_an_invalid_token() {
        for list in [
            &[(PROTOCOL, "taskcast.v1, bearer.a.b.c, bearer.d.e.f")][..],
            &[(PROTOCOL, "bearer.a"), (PROTOCOL, "bearer.b")][..],
            &[(PROTOCOL, "bearer.")][..],
            &[("authorization", "Basic x"), (PROTOCOL, "bearer.a.b.c")][..],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")][..],
        ] {
            assert_eq!(head_token(&headers(list)).as_deref(), Some(""), "{list:?}");
        }
    }

    #[test]
    fn the_answer_names_the_subprotocol_only_if_it_was_offered_and_never_the_token() {
        for (list, chosen) in [
            (&[][..], None),
            (&[(PROTOCOL, "bearer.a.b.c")][..], None),
            (&[(PROTOCOL, "taskcast.v2, graphql-ws")][..], None),
            (&[(PROTOCOL, "bearer.a.b.c , taskcast.v1")][..], Some("taskcast.v1")),
        ] {
            let answer = chosen_subprotocol(&headers(list));
            assert_eq!(answer.as_ref().and_then(|value| value.to_str().ok()), chosen, "{list:?}");
        }
    }
}
