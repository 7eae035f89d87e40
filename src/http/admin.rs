//! The routes for administrators.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{ApiError, HttpState, body::JsonBody, caller::Administrator};
use crate::{
    auth::{UnixTime, user_id},
    task::{Timestamp, UserId},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Disconnect {
    user_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disconnected {
    user_id: UserId,
    /// Tokens that were issued up to this time are refused.
    disconnected_at: Option<String>,
    /// All live nodes have been informed.
    everywhere: bool,
}

/// Closes all connections of a user, on all nodes.
pub(super) async fn disconnect(
    State(state): State<HttpState>,
    Administrator(admin): Administrator,
    JsonBody(body): JsonBody,
) -> Result<Json<Disconnected>, ApiError> {
    let request: Option<Disconnect> = serde_json::from_value(body).ok();
    let user = request
        .and_then(|request| user_id(&request.user_id))
        .ok_or_else(|| ApiError::Invalid("the body must be {\"userId\": the id of a user}".to_owned()))?;
    let now = UnixTime::now();
    tracing::info!(%user, by = %admin.viewer.user, "an administrator disconnects a user");
    let everywhere = state.cluster.disconnect(user.clone(), now).await;
    let disconnected_at = i64::try_from(now.as_millis()).ok().and_then(Timestamp::from_millis);
    Ok(Json(Disconnected {
        user_id: user,
        disconnected_at: disconnected_at.map(|at| at.to_string()),
        everywhere,
    }))
}
