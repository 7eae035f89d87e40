//! The error that the server sends to clients.

use std::time::Duration;

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

use super::ClientEventName;

/// A stable code that clients may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    InvalidPayload,
    RateLimited,
    Conflict,
    NotFound,
    TooManyRooms,
    FeatureDisabled,
    TokenExpired,
    Unauthorized,
    Unavailable,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a client did not get what it asked for, as an ack's `error` or as the event `error`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub code: Code,
    pub message: &'static str,
    /// The client event that is refused; null when the refusal answers none.
    pub event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    pub fn new(code: Code, message: &'static str) -> Self {
        Self { code, message, event: None, retry_after_ms: None }
    }

    pub fn invalid(message: &'static str) -> Self {
        Self::new(Code::InvalidPayload, message)
    }

    pub fn of(self, event: ClientEventName) -> Self {
        Self { event: Some(event.into()), ..self }
    }

    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after_ms: Some(wait.as_millis().max(1) as u64), ..self }
    }
}
