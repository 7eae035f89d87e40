//! Serves the timeline of a task page by page, from its newest entry on. Clients get the entries here that a `task:state` left out.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{
    ApiError, HttpState,
    caller::Reader,
    parameters::{Parameters, known_parameters, limit},
    tasks::{self, TaskPath},
};
use crate::task::{Access, Window};

const DEFAULT_LIMIT: usize = 200;
const MAX_LIMIT: usize = 1000;

pub(super) async fn page(
    State(state): State<HttpState>,
    Reader(identity): Reader,
    TaskPath(id): TaskPath,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let window = window(parameters)?;
    let is_visible = |access: &Access| access.allows(&identity.viewer);
    let read = tasks::read_visible_task(&state.reads, &id, is_visible, window).await?;
    let full = read.task.as_ref().ok_or(ApiError::NoTask)?;
    Ok(Json(json!({
        "events": full.timeline,
        "total": full.older + full.timeline.len() + full.newer,
        "nextBefore": (full.older > 0).then_some(full.older),
        "eventId": read.position.to_string(),
    })))
}

fn window(parameters: Parameters) -> Result<Window, ApiError> {
    let mut window = Window::newest(DEFAULT_LIMIT);
    for (name, value) in known_parameters(parameters, &["before", "limit"])? {
        if name == "before" {
            window.before = before(&value)?;
        } else {
            window.limit = limit(&value, 1..=MAX_LIMIT)?;
        }
    }
    Ok(window)
}

fn before(text: &str) -> Result<usize, ApiError> {
    let invalid = |_| ApiError::Invalid("before must be a whole number, 0 or more".to_owned());
    text.parse().map_err(invalid)
}
