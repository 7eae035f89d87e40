//! The task API. Its writes reach the clients through the store's feed, like all other writes.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde_json::{Value, json};

use super::{
    ApiError, HttpState,
    body::JsonBody,
    caller::{Pipeline, Reader, Writer},
    parameters::{Parameters, known_parameters, limit},
};
use crate::{
    store::{BatchedReads, Cursor, TaskFilter, TaskSnapshot},
    task::{
        Access, Answers, FullTask, FullView, NewTask, Summary, TaskId, TaskPatch, UserId, Viewer, Window,
    },
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// Which tasks a list contains.
#[derive(Debug)]
struct Listing {
    filter: TaskFilter,
    cursor: Option<Cursor>,
    limit: usize,
}

pub(super) async fn list(
    State(state): State<HttpState>,
    Reader(identity): Reader,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let Listing { filter, cursor, limit } = Listing::parse(parameters)?;
    let page = state.store.list(&identity.viewer, &filter, cursor.as_ref(), limit).await?;
    let tasks: Vec<_> = page.tasks.iter().map(Summary).collect();
    Ok(Json(json!({"tasks": tasks, "nextCursor": page.next.map(|next| next.encode())})))
}

pub(super) async fn show(
    State(state): State<HttpState>,
    Reader(identity): Reader,
    TaskPath(id): TaskPath,
) -> Result<Response, ApiError> {
    let read = read_visible_task(&state.reads, &id, &identity.viewer, Window::ALL).await?;
    Ok(Json(FullView(read.task.as_ref().ok_or(ApiError::NoTask)?)).into_response())
}

/// Reads a task, if the viewer may see it, with the entries of its timeline that `window` selects.
pub(super) async fn read_visible_task(
    reads: &BatchedReads,
    id: &TaskId,
    viewer: &Viewer,
    window: Window,
) -> Result<Arc<TaskSnapshot>, ApiError> {
    let is_allowed = |access: &Access| access.allows(viewer);
    if !reads.access(id).await?.access.as_ref().is_some_and(is_allowed) {
        return Err(ApiError::NoTask);
    }
    let read = reads.task_part(id, window).await?.answer;
    match &read.task {
        Some(full) if is_allowed(&full.task.access) => Ok(read),
        _ => Err(ApiError::NoTask),
    }
}

pub(super) async fn create(
    State(state): State<HttpState>,
    Writer(identity): Writer,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let task = NewTask::parse(body)?;
    let created = state.store.create(task, &identity.viewer, identity.name.as_deref()).await?;
    let mut response = accepted(&created);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/tasks/{}", created.task.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn clarify(
    State(state): State<HttpState>,
    Writer(identity): Writer,
    TaskPath(id): TaskPath,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let answers = Answers::parse(body)?;
    Ok(accepted(&state.store.clarify(&id, &identity.viewer, answers).await?))
}

pub(super) async fn patch(
    State(state): State<HttpState>,
    Pipeline(identity): Pipeline,
    TaskPath(id): TaskPath,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let patch = TaskPatch::parse(body)?;
    Ok(Json(FullView(&state.store.patch(&id, &identity.viewer, patch).await?)).into_response())
}

/// The task's id in the path. A malformed id is answered like the id of a task that does not exist.
#[derive(Debug)]
pub(super) struct TaskPath(pub TaskId);

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::NoTask)?;
        TaskId::parse(&id).map(Self).ok_or(ApiError::NoTask)
    }
}

impl Listing {
    fn parse(parameters: Parameters) -> Result<Self, ApiError> {
        let mut listing = Self { filter: TaskFilter::default(), cursor: None, limit: DEFAULT_LIMIT };
        for (name, value) in known_parameters(parameters, &["status", "creator", "limit", "cursor"])? {
            match name.as_str() {
                "status" => listing.filter.status = Some(value),
                "creator" => listing.filter.creator = UserId::parse(&value),
                "limit" => listing.limit = limit(&value, 1..=MAX_LIMIT)?,
                _ => listing.cursor = Some(cursor(&value)?),
            }
        }
        Ok(listing)
    }
}

fn cursor(text: &str) -> Result<Cursor, ApiError> {
    Cursor::decode(text).map_err(|cause| ApiError::Invalid(cause.to_string()))
}

fn accepted(task: &FullTask) -> Response {
    (StatusCode::ACCEPTED, Json(FullView(task))).into_response()
}
