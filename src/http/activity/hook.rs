//! Receives the hooks of coding agents.

use std::time::Duration;

use axum::{Json, extract::State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Reporter, events::Events};
use crate::{
    activity::hook_reports,
    http::{ApiError, HttpState},
    rate_limited_log::rate_limited_log,
    reporting::InvalidEvent,
};

/// An agent waits for its hook, so it gets an answer after this time in any case. The write continues.
const PATIENCE: Duration = Duration::from_millis(900);

/// Stores what the hook reports. The answer is an empty object, because agents read an answer as instructions.
pub(super) async fn receive(
    State(state): State<HttpState>,
    Reporter(identity): Reporter,
    Events { list: mut bodies, permit }: Events,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (Some(hook), true) = (bodies.pop(), bodies.is_empty()) else {
        return Err(ApiError::Invalid("the body must be the object of one hook".to_owned()));
    };
    let reports = hook_reports(&hook).map_err(|problem| {
        ApiError::InvalidEvents(vec![InvalidEvent { index: 0, event_type: None, problem }])
    })?;
    let reporting = state.reporting()?.clone();
    let stored = tokio::spawn(async move {
        let _permit = permit;
        let stored = reporting.report_made(&identity.viewer, reports).await;
        if let Err(error) = &stored {
            rate_limited_log!(warn, %error, "the hook of a coding agent was not stored");
        }
        stored
    });
    match tokio::time::timeout(PATIENCE, stored).await {
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(panicked)) => Err(ApiError::Internal(panicked.to_string())),
        Ok(Ok(Ok(_))) | Err(_) => Ok((StatusCode::ACCEPTED, Json(json!({})))),
    }
}
