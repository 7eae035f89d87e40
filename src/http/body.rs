//! Reads a request's body as JSON.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::{ApiError, caller::BodyPermit};
use crate::json::replace_lone_surrogates;

/// The size limit for a body of the task API.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// The JSON value that a client sent. The domain code checks its content.
#[derive(Debug)]
pub(super) struct JsonBody(pub Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        let _permit = request.extensions_mut().remove::<BodyPermit>();
        if !has_json_content_type(request.headers()) {
            return Err(ApiError::UnsupportedMediaType("application/json"));
        }
        let text = read_text(Bytes::from_request(request, state).await, MAX_BODY_BYTES)?;
        parse_json(&text).map(Self)
    }
}

/// The text of a body that was read with this size limit.
pub(super) fn read_text(body: Result<Bytes, BytesRejection>, max_bytes: usize) -> Result<String, ApiError> {
    let bytes = body.map_err(|cause| match cause.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(max_bytes),
        _ => ApiError::Invalid("the body could not be read to its end".to_owned()),
    })?;
    String::from_utf8(bytes.into())
        .map_err(|_| ApiError::Invalid("the body is not UTF-8: send JSON in UTF-8".to_owned()))
}

pub(super) fn parse_json(text: &str) -> Result<Value, ApiError> {
    serde_json::from_str(&replace_lone_surrogates(text)).map_err(|cause| {
        let (line, column) = (cause.line(), cause.column());
        ApiError::Invalid(format!("the body is not JSON (line {line}, column {column})"))
    })
}

pub(super) fn has_json_content_type(headers: &HeaderMap) -> bool {
    let Some(Ok(content_type)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
