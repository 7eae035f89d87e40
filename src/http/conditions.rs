//! Reads the headers that a write depends on: `Idempotency-Key` and `If-Match`.

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, header, request::Parts};

use super::ApiError;
use crate::{
    feed::Position,
    store::{TaskWrite, WriteRequest},
    task::Viewer,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_KEY_BYTES: usize = 128;

const KEY_EXPECTED: &str = "Idempotency-Key must be given once, and be 1 to 128 visible ASCII characters";
const EVENT_ID_EXPECTED: &str =
    "If-Match must be given once, and be the eventId of an answer, a state or an event";

/// The headers of a write.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Conditions {
    key: Option<String>,
    unchanged_since: Option<Position>,
}

impl Conditions {
    pub(super) fn apply(&self, by: Viewer, write: TaskWrite) -> WriteRequest {
        let request = WriteRequest { unchanged_since: self.unchanged_since, ..WriteRequest::new(by, write) };
        match &self.key {
            Some(key) => request.with_key(key),
            None => request,
        }
    }

    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let is_key = |text: &str| {
            (1..=MAX_KEY_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let key = single(headers, &IDEMPOTENCY_KEY, KEY_EXPECTED)?;
        if key.is_some_and(|key| !is_key(key)) {
            return Err(ApiError::Invalid(KEY_EXPECTED.to_owned()));
        }
        let unchanged_since = single(headers, &header::IF_MATCH, EVENT_ID_EXPECTED)?.map(|text| {
            let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
            bare.parse().map_err(|_| ApiError::Invalid(EVENT_ID_EXPECTED.to_owned()))
        });
        Ok(Self { key: key.map(str::to_owned), unchanged_since: unchanged_since.transpose()? })
    }
}

/// The value of a header. An error means that there are several, or that it is not text.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    expected: &str,
) -> Result<Option<&'a str>, ApiError> {
    let invalid = || ApiError::Invalid(expected.to_owned());
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| invalid()),
        (Some(_), Some(_)) => Err(invalid()),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(values: &[(&'static str, &[u8])]) -> Result<Conditions, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        Conditions::read(&headers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_visible_ascii() {
        assert_eq!(read(&[]), Ok(Conditions::default()));
        let longest = "k".repeat(128);
        for key in ["k", "~!{}\"", &longest] {
            let expected = Conditions { key: Some(key.to_owned()), unchanged_since: None };
            assert_eq!(read(&[("idempotency-key", key.as_bytes())]), Ok(expected));
        }
        let too_long = "k".repeat(129);
        for key in [&b""[..], b"a b", b"\xc3\xa4", b"\t", too_long.as_bytes()] {
            assert_eq!(read(&[("idempotency-key", key)]), Err(KEY_EXPECTED.to_owned()));
        }
        let twice = [("idempotency-key", &b"a"[..]), ("idempotency-key", b"a")];
        assert_eq!(read(&twice), Err(KEY_EXPECTED.to_owned()));
    }

    #[test]
    fn a_condition_is_an_event_id_with_or_without_quotes() {
        let position = Position { time: 5, ordinal: 1, index: 2 };
        let expected = || Ok(Conditions { key: None, unchanged_since: Some(position) });
        assert_eq!(read(&[("if-match", position.to_string().as_bytes())]), expected());
        assert_eq!(read(&[("if-match", format!("\"{position}\"").as_bytes())]), expected());
        let weak = format!("W/\"{position}\"");
        for other in ["", "*", "\"\"", "\"", "5", weak.as_str()] {
            assert_eq!(read(&[("if-match", other.as_bytes())]), Err(EVENT_ID_EXPECTED.to_owned()), "{other}");
        }
    }
}
