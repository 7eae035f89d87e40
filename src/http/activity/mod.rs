//! The activity API: producers report events, and users read pages of them.

mod events;
mod hook;
mod page;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequestParts, State},
    routing::{get, post},
};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{
    ApiError, HttpState,
    caller::{BodyPermit, identify},
};
use crate::{auth::Identity, reporting::ReportError, store::Appended};
use events::{Events, MAX_BYTES};

const REPORT_SCOPE: &str = "events:write";

pub(super) fn routes() -> Router<HttpState> {
    Router::new()
        .route("/api/activity", get(page::page).post(report))
        .route("/api/activity/hook", post(hook::receive))
        .route("/api/activity/types", get(types))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
}

/// A caller with a valid token, if activity is switched on.
#[derive(Debug)]
struct Member(Identity);

/// A [`Member`] whose token has the scope `events:write`.
#[derive(Debug)]
struct Reporter(Identity);

impl FromRequestParts<HttpState> for Member {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, ApiError> {
        let identity = identify(&parts.headers, state).await?;
        state.reporting()?;
        Ok(Self(identity))
    }
}

impl FromRequestParts<HttpState> for Reporter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, ApiError> {
        let Member(identity) = Member::from_request_parts(parts, state).await?;
        if !identity.has_scope(REPORT_SCOPE) {
            return Err(ApiError::MissingScope(REPORT_SCOPE));
        }
        // A user who reports too much is refused before the body is read and parsed.
        state.reporting()?.check_rate(&identity.viewer.user)?;
        parts.extensions.insert(BodyPermit::of(&identity)?);
        Ok(Self(identity))
    }
}

/// Stores the reported events, all or none. They are durable when the answer is sent.
async fn report(
    State(state): State<HttpState>,
    Reporter(identity): Reporter,
    Events { list, permit: _permit }: Events,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Appended { accepted, duplicates, last } = state.reporting()?.report(&identity.viewer, list).await?;
    let answer = json!({"accepted": accepted, "duplicates": duplicates, "eventId": last.to_string()});
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// The types that may be reported, with their schemas.
async fn types(State(state): State<HttpState>, _: Member) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"types": state.reporting()?.registry.types()})))
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Invalid(details) => Self::InvalidEvents(details),
            ReportError::Conflict { .. } => Self::Conflict(error.to_string()),
            ReportError::TooMany(limited) => Self::RateLimited { retry_after: limited.retry_after },
            ReportError::LargerThanBurst { .. } => Self::Invalid(error.to_string()),
            ReportError::Store(error) => error.into(),
        }
    }
}
