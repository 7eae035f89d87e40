//! Reads a body with events: one event, an array of events, or one event on each line.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{HeaderMap, header};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    activity::EventProblem,
    http::{
        ApiError,
        body::{has_json_content_type, parse_json, read_text},
        caller::BodyPermit,
    },
    json::replace_lone_surrogates,
    reporting::InvalidEvent,
};

/// The size limit for a body with events.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// One request may report this many events.
const MAX_EVENTS: usize = 1000;

/// Bodies of this size together, in KiB, are parsed and stored at once. As JSON values in memory, they need many times more.
const MAX_RUNNING_KIB: usize = 16 * 1024;
static RUNNING: Semaphore = Semaphore::const_new(MAX_RUNNING_KIB);

/// The events of a request as JSON. Their content is not checked yet.
#[derive(Debug)]
pub(super) struct Events {
    pub list: Vec<Value>,
    /// The share of this body in [`MAX_RUNNING_KIB`]. The handler holds it until the events are stored.
    pub permit: SemaphorePermit<'static>,
}

impl<S: Send + Sync> FromRequest<S> for Events {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        let _permit = request.extensions_mut().remove::<BodyPermit>();
        let is_json = has_json_content_type(request.headers());
        if !is_json && !has_lines(request.headers()) {
            return Err(ApiError::UnsupportedMediaType("application/json or application/x-ndjson"));
        }
        let bytes = Bytes::from_request(request, state).await;
        let text = read_text(bytes, MAX_BYTES)?;
        let share = u32::try_from(text.len() / 1024 + 1).unwrap_or(u32::MAX);
        let permit = RUNNING.try_acquire_many(share).map_err(|_| ApiError::Overloaded)?;
        let events = match is_json {
            true => match parse_json(&text)? {
                Value::Array(events) => events,
                event => vec![event],
            },
            false => lines(&text)?,
        };
        match events.len() {
            0 => Err(ApiError::Invalid("the body has no event".to_owned())),
            1..=MAX_EVENTS => Ok(Self { list: events, permit }),
            _ => Err(ApiError::TooMany(MAX_EVENTS)),
        }
    }
}

fn lines(text: &str) -> Result<Vec<Value>, ApiError> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let parse = |(index, line)| {
        serde_json::from_str(&replace_lone_surrogates(line)).map_err(|cause| {
            let message = format!("is not JSON, or is nested too deeply (column {})", cause.column());
            let problem = EventProblem::new("", message);
            ApiError::InvalidEvents(vec![InvalidEvent { index, event_type: None, problem }])
        })
    };
    // One more than the limit shows that there are too many. The rest is not parsed.
    lines.take(MAX_EVENTS + 1).enumerate().map(parse).collect()
}

fn has_lines(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    ["application/x-ndjson", "application/ndjson"]
        .iter()
        .any(|name| essence.trim().eq_ignore_ascii_case(name))
}
