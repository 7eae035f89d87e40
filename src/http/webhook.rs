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

use super::{ApiError, HttpState, body::has_json_content_type};
use crate::{
    address::ClientAddress,
    config::{Secret, WebhookConfig},
    edge::{BodyMemory, Reservation},
    github::{self, DeliveryId, Received},
    metrics::WebhookOutcome,
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
const SIGNATURE_MISSING: &str =
    "X-Hub-Signature-256 is required: give the webhook the secret that the gateway has";
const SIGNATURE_WRONG: &str =
    "X-Hub-Signature-256 is not right: the webhook has another secret than the gateway";
const NO_TASK: &str = "no task matches it";

/// The state of the route, in addition to the store.
#[derive(Debug)]
pub struct Webhook {
    secrets: Vec<Secret>,
    /// The memory for bodies.
    body_memory: BodyMemory,
}

/// The log fields of a request. They are empty until the signature is verified.
#[derive(Debug, Default)]
struct LogFields {
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
    async fn read_body(
        &self,
        address: ClientAddress,
        mut body: Body,
    ) -> Result<(Bytes, Reservation), ApiError> {
        let (mut bytes, mut reservation) = (BytesMut::new(), self.body_memory.open_reservation(address));
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| ApiError::Invalid("the body could not be read to its end".to_owned()))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > MAX_BODY_BYTES {
                return drain_and_reject(body, ApiError::TooLarge(MAX_BODY_BYTES)).await;
            }
            self.body_memory.grow(&mut reservation, length).await;
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), reservation))
    }

    fn is_signed(&self, signature: &str, body: &[u8]) -> bool {
        github::is_signed(signature, body, self.secrets.iter().map(|secret| secret.expose().as_bytes()))
    }
}

/// Every request has exactly one outcome.
fn outcome_of(result: &Result<Answer, ApiError>) -> WebhookOutcome {
    match result {
        Ok(Answer::Written) => WebhookOutcome::Written,
        Ok(Answer::Duplicate) => WebhookOutcome::Duplicate,
        Ok(Answer::Ignored(_)) => WebhookOutcome::Ignored,
        Ok(Answer::Ping) => WebhookOutcome::Ping,
        Err(ApiError::BadSignature(_)) => WebhookOutcome::Unauthorized,
        Err(ApiError::NotConfigured(_)) => WebhookOutcome::NotConfigured,
        Err(ApiError::Unavailable(_) | ApiError::TimedOut) => WebhookOutcome::Unavailable,
        Err(ApiError::Internal(_)) => WebhookOutcome::Failed,
        Err(_) => WebhookOutcome::Unusable,
    }
}

/// Handles a delivery. Only this function knows the outcome of each delivery, so it logs and counts the outcome.
pub(super) async fn receive_delivery(State(state): State<HttpState>, request: Request) -> Response {
    let mut log_fields = LogFields::default();
    let received = timeout(DEADLINE, receive(&state, request, &mut log_fields)).await;
    let result = received.unwrap_or(Err(ApiError::TimedOut));
    let outcome = outcome_of(&result);
    let LogFields { event, action, delivery } = log_fields;
    state.metrics.http.webhook(event.parse().ok(), outcome);
    let outcome: &str = outcome.into();
    if event.is_empty() {
        // The request may not come from GitHub. Anybody can send as many as they like, so this line is limited.
        rate_limited_log!(info, outcome, "refused a webhook");
    } else {
        tracing::info!(event, action, delivery, outcome, "webhook");
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

async fn receive(
    state: &HttpState,
    request: Request,
    log_fields: &mut LogFields,
) -> Result<Answer, ApiError> {
    let webhook = &state.webhook;
    let (Parts { headers, extensions, .. }, body) = request.into_parts();
    let address = extensions.get().copied().unwrap_or_default();
    if webhook.secrets.is_empty() {
        return drain_and_reject(body, ApiError::NotConfigured(NOT_CONFIGURED)).await;
    }
    let length = single_header(&headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if length.is_some_and(|length: u64| length > MAX_BODY_BYTES as u64) {
        return drain_and_reject(body, ApiError::TooLarge(MAX_BODY_BYTES)).await;
    }
    let Some(signature) = single_header(&headers, &SIGNATURE).map(str::to_owned) else {
        return drain_and_reject(body, ApiError::BadSignature(SIGNATURE_MISSING)).await;
    };
    let read = timeout(BODY_DEADLINE, webhook.read_body(address, body)).await;
    let (body, reservation) = read.unwrap_or(Err(ApiError::TimedOut))?;

    // Hashing and parsing up to 25 MiB must not block the runtime that serves the other clients. If the request times out or its sender
    // disconnects, this thread continues, and holds the memory until it ends.
    let webhook = webhook.clone();
    let parsed = tokio::task::spawn_blocking(move || {
        let _reservation = reservation;
        if webhook.is_signed(&signature, &body) {
            webhook.body_memory.trust(address);
            parse_delivery(&headers, &body)
        } else {
            (LogFields::default(), Err(ApiError::BadSignature(SIGNATURE_WRONG)))
        }
    });
    // The text of a panic may quote the payload, so it is left out. The log already has the panic's position.
    let (parsed_fields, received) =
        parsed.await.map_err(|_| ApiError::Internal("a delivery could not be read".to_owned()))?;
    *log_fields = parsed_fields;
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
fn parse_delivery(headers: &HeaderMap, body: &[u8]) -> (LogFields, Result<Received, ApiError>) {
    let mut log_fields = LogFields::default();
    let event = single_header(headers, &EVENT).filter(|event| (1..=100).contains(&event.len()));
    let id = single_header(headers, &DELIVERY).and_then(DeliveryId::parse);
    log_fields.event.push_str(event.unwrap_or_default());
    log_fields.delivery.push_str(id.as_ref().map(DeliveryId::as_str).unwrap_or_default());
    let (Some(event), Some(id)) = (event, id) else {
        let missing = "X-GitHub-Event and X-GitHub-Delivery are required, one of each";
        return (log_fields, Err(ApiError::Invalid(missing.to_owned())));
    };
    if !has_json_content_type(headers) {
        return (log_fields, Err(ApiError::UnsupportedMediaType("application/json")));
    }
    match Received::parse(id, event, body) {
        Ok((received, action)) => {
            log_fields.action = action;
            (log_fields, Ok(received))
        }
        Err(cause) => (log_fields, Err(ApiError::Invalid(cause.to_string()))),
    }
}

/// The value of a header that occurs exactly once. Two values would be ambiguous.
fn single_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}

async fn drain_and_reject<T>(mut body: Body, error: ApiError) -> Result<T, ApiError> {
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
