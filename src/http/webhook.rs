//! Receives GitHub's webhooks: reads the body, verifies the signature, and answers with the outcome. [`crate::github`] interprets the
//! payload. The writes reach the clients through the store's feed, like all other writes.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::timeout;

use super::{ApiError, HttpState, body::says_json};
use crate::{
    address::ClientAddress,
    config::{Secret, WebhookConfig},
    edge::{BodyMemory, Reservation},
    github::{self, DeliveryId, Received},
    rate_limited_log::rate_limited_log,
    store::Delivered,
};

/// GitHub's own limit for a payload.
const MAX_BODY_BYTES: usize = 25 << 20;
/// GitHub closes the connection after 10 s. An answer before that says more than no answer.
const DEADLINE: Duration = Duration::from_secs(8);
const BODY_DEADLINE: Duration = Duration::from_secs(5);
/// The server still reads this much of a refused body, because a sender that is busy sending does not read the answer.
const DRAIN_BYTES: usize = 2 * MAX_BODY_BYTES;
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const EVENT: HeaderName = HeaderName::from_static("x-github-event");
const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");

const NOT_CONFIGURED: &str = "this gateway accepts no webhooks: GITHUB_WEBHOOK_SECRET is not set";
const UNSIGNED: &str = "X-Hub-Signature-256 is required: give the webhook the secret that the gateway has";
const WRONGLY_SIGNED: &str =
    "X-Hub-Signature-256 is not right: the webhook has another secret than the gateway";
const NO_TASK: &str = "no task matches it";

/// The state of the route, in addition to the store.
#[derive(Debug)]
pub struct Webhook {
    secrets: Vec<Secret>,
    /// The memory for bodies.
    body_memory: BodyMemory,
}

/// The outcome of a request. Every request has exactly one, which [`github`] determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    Duplicate,
    Ignored,
    Ping,
    /// The request is not signed, or not with one of the configured secrets.
    Unauthorized,
    /// The request is too large, or it is signed but cannot be used.
    Unusable,
    /// The store is unavailable, or the request took too long.
    Unavailable,
    Failed,
    NotConfigured,
}

/// The log fields of a request. They are empty until the signature is verified.
#[derive(Debug, Default)]
struct Told {
    event: String,
    action: Option<String>,
    delivery: String,
}

#[derive(Debug)]
enum Answer {
    Written,
    Duplicate,
    Ignored(&'static str),
    Ping,
}

impl Webhook {
    pub fn new(config: &WebhookConfig) -> Self {
        Self { secrets: config.secrets.clone(), body_memory: BodyMemory::default() }
    }

    /// Reads a body, and takes memory for it from [`BodyMemory`].
    async fn whole(&self, address: ClientAddress, mut body: Body) -> Result<(Bytes, Reservation), ApiError> {
        let (mut bytes, mut taken) = (BytesMut::new(), self.body_memory.enter(address));
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| ApiError::Invalid("the body could not be read to its end".to_owned()))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > MAX_BODY_BYTES {
                return refused(body, ApiError::TooLarge(MAX_BODY_BYTES)).await;
            }
            self.body_memory.grow(&mut taken, length).await;
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), taken))
    }

    fn signed(&self, signature: &str, body: &[u8]) -> bool {
        github::is_signed(signature, body, self.secrets.iter().map(|secret| secret.expose().as_bytes()))
    }
}

impl Outcome {
    /// The name in logs and metrics. The names are few and do not change.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Ping => "ping",
            Self::Unauthorized => "unauthorized",
            Self::Unusable => "unusable",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::NotConfigured => "not_configured",
        }
    }

    fn of(result: &Result<Answer, ApiError>) -> Self {
        match result {
            Ok(Answer::Written) => Self::Written,
            Ok(Answer::Duplicate) => Self::Duplicate,
            Ok(Answer::Ignored(_)) => Self::Ignored,
            Ok(Answer::Ping) => Self::Ping,
            Err(ApiError::BadSignature(_)) => Self::Unauthorized,
            Err(ApiError::NotConfigured(_)) => Self::NotConfigured,
            Err(ApiError::Unavailable(_) | ApiError::TimedOut) => Self::Unavailable,
            Err(ApiError::Internal(_)) => Self::Failed,
            Err(_) => Self::Unusable,
        }
    }
}

/// Handles a delivery. Only this function knows the outcome of each delivery, so it logs and counts the outcome.
pub(super) async fn github(State(state): State<HttpState>, request: Request) -> Response {
    let mut told = Told::default();
    let received = timeout(DEADLINE, receive(&state, request, &mut told)).await;
    let result = received.unwrap_or(Err(ApiError::TimedOut));
    let outcome = Outcome::of(&result);
    let Told { event, action, delivery } = told;
    state.metrics.http.webhook(github::event_label(&event), outcome.label());
    if event.is_empty() {
        // The request may not come from GitHub. Anybody can send as many as they like, so this line is limited.
        rate_limited_log!(info, outcome = outcome.label(), "refused a webhook");
    } else {
        tracing::info!(event, action, delivery, outcome = outcome.label(), "webhook");
    }
    match result {
        Ok(Answer::Written | Answer::Ping) => Json(json!({"ok": true})).into_response(),
        Ok(Answer::Duplicate) => Json(json!({"ok": true, "duplicate": true})).into_response(),
        Ok(Answer::Ignored(reason)) => {
            (StatusCode::ACCEPTED, Json(json!({"ignored": reason}))).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn receive(state: &HttpState, request: Request, told: &mut Told) -> Result<Answer, ApiError> {
    let webhook = &state.webhook;
    let (Parts { headers, extensions, .. }, body) = request.into_parts();
    let address = extensions.get().copied().unwrap_or_default();
    if webhook.secrets.is_empty() {
        return refused(body, ApiError::NotConfigured(NOT_CONFIGURED)).await;
    }
    let length = only(&headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if length.is_some_and(|length: u64| length > MAX_BODY_BYTES as u64) {
        return refused(body, ApiError::TooLarge(MAX_BODY_BYTES)).await;
    }
    let Some(signature) = only(&headers, &SIGNATURE).map(str::to_owned) else {
        return refused(body, ApiError::BadSignature(UNSIGNED)).await;
    };
    let whole = timeout(BODY_DEADLINE, webhook.whole(address, body)).await;
    let (body, room) = whole.unwrap_or(Err(ApiError::TimedOut))?;

    // Hashing and parsing up to 25 MiB must not block the runtime that serves the other clients. If the request times out or its sender
    // disconnects, this thread continues, and holds the memory until it ends.
    let webhook = webhook.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let _room = room;
        if webhook.signed(&signature, &body) {
            webhook.body_memory.trust(address);
            open(&headers, &body)
        } else {
            (Told::default(), Err(ApiError::BadSignature(WRONGLY_SIGNED)))
        }
    });
    // The text of a panic may quote the payload, so it is left out. The log already has the panic's position.
    let (known, received) =
        opened.await.map_err(|_| ApiError::Internal("a delivery could not be read".to_owned()))?;
    *told = known;
    match received? {
        Received::Ping => Ok(Answer::Ping),
        Received::Ignored(reason) => Ok(Answer::Ignored(reason)),
        Received::Delivery(delivery) => Ok(match state.store.deliver(*delivery).await? {
            Delivered::Written(_) => Answer::Written,
            Delivered::Duplicate => Answer::Duplicate,
            Delivered::NoTask => Answer::Ignored(NO_TASK),
        }),
    }
}

/// Parses a request whose signature is valid.
fn open(headers: &HeaderMap, body: &[u8]) -> (Told, Result<Received, ApiError>) {
    let mut told = Told::default();
    let event = only(headers, &EVENT).filter(|event| (1..=100).contains(&event.len()));
    let id = only(headers, &DELIVERY).and_then(DeliveryId::parse);
    told.event.push_str(event.unwrap_or_default());
    told.delivery.push_str(id.as_ref().map(DeliveryId::as_str).unwrap_or_default());
    let (Some(event), Some(id)) = (event, id) else {
        let missing = "X-GitHub-Event and X-GitHub-Delivery are required, one of each";
        return (told, Err(ApiError::Invalid(missing.to_owned())));
    };
    if !says_json(headers) {
        return (told, Err(ApiError::NotJson));
    }
    match Received::parse(id, event, body) {
        Ok((received, action)) => {
            told.action = action;
            (told, Ok(received))
        }
        Err(cause) => (told, Err(ApiError::Invalid(cause.to_string()))),
    }
}

/// The value of a header that occurs exactly once. Two values would be ambiguous.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}

async fn refused<T>(mut body: Body, error: ApiError) -> Result<T, ApiError> {
    let drain = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > DRAIN_BYTES {
                break;
            }
        }
    };
    let _ = timeout(DRAIN_DEADLINE, drain).await;
    Err(error)
}
