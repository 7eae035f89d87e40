//! `/metrics`, for Prometheus.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use super::{ApiError, HttpState};
use crate::{
    auth::{AuthError, bearer},
    metrics::CONTENT_TYPE,
};

pub(super) async fn scrape(State(state): State<HttpState>, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Some(expected) = &state.metrics_token {
        let token = bearer(&headers).ok_or(ApiError::NoToken)?;
        if !bool::from(token.as_bytes().ct_eq(expected.expose().as_bytes())) {
            return Err(ApiError::Token(AuthError::Unauthorized("the token is not METRICS_TOKEN")));
        }
    }
    state.status.measure();
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.render()).into_response())
}
