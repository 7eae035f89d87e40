//! The task API. Its writes reach the clients through the store's feed, like all other writes.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    ApiError, HttpState,
    body::JsonBody,
    caller::{Pipeline, Reader, Writer},
    conditions::Conditions,
    parameters::{Parameters, known_parameters, limit},
};
use crate::{
    feed::Position,
    store::{
        BatchedReads, Cursor, EarlierWrite, TaskFilter, TaskSnapshot, TaskWrite, WriteOutcome, WriteRequest,
    },
    task::{Access, Answers, FullTask, FullView, NewTask, Summary, TaskId, TaskPatch, UserId, Window},
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
    Ok(Json(json!({
        "tasks": tasks,
        "nextCursor": page.next.map(|next| next.encode()),
        "eventId": page.position.to_string(),
    })))
}

pub(super) async fn show(
    State(state): State<HttpState>,
    Reader(identity): Reader,
    TaskPath(id): TaskPath,
) -> Result<Response, ApiError> {
    let is_visible = |access: &Access| access.allows(&identity.viewer);
    let read = read_visible_task(&state.reads, &id, is_visible, Window::ALL).await?;
    let task = read.task.as_ref().ok_or(ApiError::NoTask)?;
    Ok(Json(At { view: FullView(task), event_id: Some(read.position.to_string()) }).into_response())
}

/// A task, and the position of its client's copy when the client has applied this answer or write.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct At<'a> {
    #[serde(flatten)]
    view: FullView<'a>,
    event_id: Option<String>,
}

/// Reads a task, if its access is allowed, with the entries of its timeline that `window` selects.
pub(super) async fn read_visible_task(
    reads: &BatchedReads,
    id: &TaskId,
    is_allowed: impl Fn(&Access) -> bool,
    window: Window,
) -> Result<Arc<TaskSnapshot>, ApiError> {
    if !reads.access(id).await?.access.as_ref().is_some_and(&is_allowed) {
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
    conditions: Conditions,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let write = TaskWrite::Create { task: NewTask::parse(body)?, creator_name: identity.name.clone() };
    let (id, mut response) = answer(&state, conditions.apply(identity.viewer, write)).await?;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/tasks/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn clarify(
    State(state): State<HttpState>,
    Writer(identity): Writer,
    TaskPath(id): TaskPath,
    conditions: Conditions,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let write = TaskWrite::Clarify { id, answers: Answers::parse(body)? };
    Ok(answer(&state, conditions.apply(identity.viewer, write)).await?.1)
}

pub(super) async fn patch(
    State(state): State<HttpState>,
    Pipeline(identity): Pipeline,
    TaskPath(id): TaskPath,
    conditions: Conditions,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let write = TaskWrite::Patch { id, patch: TaskPatch::parse(body)? };
    Ok(answer(&state, conditions.apply(identity.viewer, write)).await?.1)
}

/// Makes a write, and answers with its task. The answer to a repeated request has the task as it is now, if the user may still have it.
async fn answer(state: &HttpState, request: WriteRequest) -> Result<(TaskId, Response), ApiError> {
    let by = request.by.clone();
    let is_patch = matches!(request.write, TaskWrite::Patch { .. });
    let status = if is_patch { StatusCode::OK } else { StatusCode::ACCEPTED };
    let respond = |task: &FullTask, event_id: Option<Position>| {
        let event_id = event_id.map(|position| position.to_string());
        let response = (status, Json(At { view: FullView(task), event_id })).into_response();
        (task.task.id.clone(), response)
    };
    match state.store.write(request).await? {
        WriteOutcome::Written(written) => Ok(respond(&written.task, written.event_id)),
        WriteOutcome::Repeated(EarlierWrite { task, event_id }) => {
            let is_allowed =
                |access: &Access| if is_patch { access.writable_by(&by) } else { access.allows(&by) };
            let read = read_visible_task(&state.reads, &task, is_allowed, Window::ALL).await?;
            Ok(respond(read.task.as_ref().ok_or(ApiError::NoTask)?, event_id))
        }
    }
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
