//! The errors of the HTTP API: their codes, statuses, headers and texts.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{
    auth::AuthError,
    edge::error_response,
    rate_limited_log::rate_limited_log,
    reporting::InvalidEvent,
    store::{StoreError, WriteError},
    task::PatchError,
};

/// Why a request is refused. The client gets the text of the error. The causes in [`ApiError::Unavailable`] and
/// [`ApiError::Internal`] are only for the log.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("no such route")]
    NoRoute,
    /// The task does not exist, or the user may not see it. The client cannot distinguish the two.
    #[error("no such task")]
    NoTask,
    #[error("this route does not have that method")]
    MethodNotAllowed,
    #[error("a bearer token is required")]
    NoToken,
    #[error("{}", token_error_message(.0))]
    Token(AuthError),
    /// Temporary.
    #[error("the key that the token is checked with can't be fetched at the moment")]
    NoKey { retry_after: Duration },
    #[error("{0}")]
    BadSignature(&'static str),
    #[error("the token lacks the scope {0}")]
    MissingScope(&'static str),
    #[error("{0}")]
    FeatureDisabled(&'static str),
    #[error("{0}")]
    Invalid(String),
    /// Some of the events of a request are not valid. The answer has a list of them.
    #[error("the events are not valid, and none of them was stored: see details")]
    InvalidEvents(Vec<InvalidEvent>),
    #[error("the body must be sent as {0}")]
    UnsupportedMediaType(&'static str),
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body has more than {0} events: send several requests")]
    TooMany(usize),
    #[error("this user sends too much")]
    RateLimited { retry_after: Duration },
    #[error("{0}")]
    Conflict(String),
    /// Another request uses the idempotency key now.
    #[error("{0}")]
    KeyInUse(String),
    /// The idempotency key was used for another request.
    #[error("{0}")]
    KeyReused(String),
    #[error("{0}")]
    Changed(String),
    /// Permanent until an operator sets the missing setting.
    #[error("{0}")]
    NotConfigured(&'static str),
    /// Temporary.
    #[error("the store can't be reached at the moment")]
    Unavailable(String),
    #[error("the request took too long")]
    TimedOut,
    #[error("the server is handling too many requests")]
    Overloaded,
    #[error("something went wrong; see the log entry with this response's x-request-id")]
    Internal(String),
}

impl ApiError {
    /// The error code. It is part of the contract: clients distinguish errors by it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoute | Self::NoTask => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NoToken | Self::BadSignature(_) => "unauthorized",
            Self::Token(error) => error.code(),
            Self::MissingScope(_) => "forbidden",
            Self::FeatureDisabled(_) => "feature_disabled",
            Self::Invalid(_) => "invalid_payload",
            Self::InvalidEvents(_) => "invalid_event",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::TooLarge(_) | Self::TooMany(_) => "payload_too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::Conflict(_) => "conflict",
            Self::KeyInUse(_) => "request_in_progress",
            Self::KeyReused(_) => "idempotency_key_reused",
            Self::Changed(_) => "precondition_failed",
            Self::NotConfigured(_) | Self::Unavailable(_) | Self::TimedOut | Self::NoKey { .. } => {
                "unavailable"
            }
            Self::Overloaded => "overloaded",
            Self::Internal(_) => "internal",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute | Self::NoTask => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken | Self::Token(_) | Self::BadSignature(_) => StatusCode::UNAUTHORIZED,
            Self::MissingScope(_) | Self::FeatureDisabled(_) => StatusCode::FORBIDDEN,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::InvalidEvents(_) | Self::KeyReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) | Self::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Conflict(_) | Self::KeyInUse(_) => StatusCode::CONFLICT,
            Self::Changed(_) => StatusCode::PRECONDITION_FAILED,
            Self::NotConfigured(_)
            | Self::Unavailable(_)
            | Self::TimedOut
            | Self::Overloaded
            | Self::NoKey { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::NoKey { retry_after } | Self::RateLimited { retry_after } => {
                return Some((header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs() + 1)));
            }
            Self::NoToken => (header::WWW_AUTHENTICATE, r#"Bearer realm="taskcast""#),
            Self::Token(_) => (header::WWW_AUTHENTICATE, r#"Bearer realm="taskcast", error="invalid_token""#),
            Self::MissingScope(_) => {
                (header::WWW_AUTHENTICATE, r#"Bearer realm="taskcast", error="insufficient_scope""#)
            }
            Self::Unavailable(_) | Self::TimedOut | Self::Overloaded | Self::KeyInUse(_) => {
                (header::RETRY_AFTER, "1")
            }
            _ => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }

    fn log(&self) {
        match self {
            Self::Token(error @ AuthError::TooLong { .. }) => {
                rate_limited_log!(warn, %error, "refused a token")
            }
            Self::Token(AuthError::Unauthorized(reason)) => {
                rate_limited_log!(info, reason, "refused a token")
            }
            Self::Unavailable(cause) => {
                rate_limited_log!(warn, cause, "request refused: the store is unavailable")
            }
            Self::NoKey { .. } => {
                rate_limited_log!(info, "request refused: the key of its token is not known yet")
            }
            Self::TimedOut => rate_limited_log!(warn, "request timed out"),
            Self::Overloaded => rate_limited_log!(warn, "request refused: too many are in progress"),
            Self::Internal(cause) => rate_limited_log!(error, cause, "request failed"),
            _ => {}
        }
    }
}

/// The text for the client. The length limit is not a secret, and a client with a token that is too long can do something about it.
fn token_error_message(error: &AuthError) -> Cow<'static, str> {
    match error {
        AuthError::Expired => "the token has expired".into(),
        AuthError::TooLong { max, .. } => format!("the token has more than {max} bytes").into(),
        _ => "the token is not valid".into(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let (status, code, message) = (self.status(), self.code(), self.to_string());
        let mut response = match &self {
            Self::InvalidEvents(details) => {
                let error = json!({"code": code, "message": message, "details": details});
                (status, Json(json!({"error": error}))).into_response()
            }
            _ => error_response(status, code, &message),
        };
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::NoKey { retry_after } => Self::NoKey { retry_after },
            permanent => Self::Token(permanent),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_temporary() {
            Self::Unavailable(error.to_string())
        } else {
            Self::Internal(error.to_string())
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotFound => Self::NoTask,
            WriteError::Conflict(text) => Self::Conflict(text),
            WriteError::KeyInUse => Self::KeyInUse(error.to_string()),
            WriteError::KeyReused => Self::KeyReused(error.to_string()),
            WriteError::Changed => Self::Changed(error.to_string()),
            WriteError::Store(error) => error.into(),
        }
    }
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        Self::Invalid(error.to_string())
    }
}
