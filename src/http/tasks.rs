//! The task API. What it writes reaches the sockets through the store's feed, like everybody's writes.

use axum::{
    Json,
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde_json::{Value, json};

use super::{
    ApiError, HttpState,
    body::JsonBody,
    caller::{Pipeline, Reader, Writer},
};
use crate::{
    store::{Cursor, Store, StoreError, TaskFilter},
    task::{Access, Answers, FullTask, FullView, NewTask, Summary, TaskId, TaskPatch, UserId, Viewer},
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// What a list is narrowed to.
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
    let Query(parameters) =
        parameters.map_err(|_| ApiError::Invalid("the query can't be read".to_owned()))?;
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
    // Others may be read with it: who hangs up does not break their read off.
    let found = tokio::spawn(async move { read(&*state.store, &id, &identity.viewer).await }).await;
    match found.map_err(|failed| ApiError::Internal(failed.to_string()))?? {
        Some(task) => Ok(Json(FullView(&task)).into_response()),
        None => Err(ApiError::NoTask),
    }
}

/// What the viewer may see of it.
async fn read(store: &dyn Store, id: &TaskId, viewer: &Viewer) -> Result<Option<FullTask>, StoreError> {
    let may = |access: &Access| access.allows(viewer);
    if !store.access(id).await?.access.is_some_and(|access| may(&access)) {
        return Ok(None);
    }
    Ok(store.task(id).await?.task.filter(|full| may(&full.task.access)))
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

/// The id in the path. One that can't be is one that is not there.
#[derive(Debug)]
pub(super) struct TaskPath(TaskId);

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::NoTask)?;
        TaskId::parse(&id).map(Self).ok_or(ApiError::NoTask)
    }
}

impl Listing {
    /// Empty parameters count as absent, unknown ones are none of our business.
    fn parse(parameters: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut listing = Self { filter: TaskFilter::default(), cursor: None, limit: DEFAULT_LIMIT };
        let mut seen = Vec::new();
        for (name, value) in parameters {
            if !["status", "creator", "limit", "cursor"].contains(&&*name) {
                continue;
            }
            if seen.contains(&name) {
                return Err(ApiError::Invalid(format!("{name} must be given once")));
            }
            match name.as_str() {
                _ if value.is_empty() => {}
                "status" => listing.filter.status = Some(value),
                "creator" => listing.filter.creator = UserId::parse(&value),
                "limit" => listing.limit = limit(&value)?,
                _ => listing.cursor = Some(cursor(&value)?),
            }
            seen.push(name);
        }
        Ok(listing)
    }
}

fn limit(text: &str) -> Result<usize, ApiError> {
    match text.parse() {
        Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(ApiError::Invalid(format!("limit must be a whole number from 1 to {MAX_LIMIT}"))),
    }
}

fn cursor(text: &str) -> Result<Cursor, ApiError> {
    Cursor::decode(text).map_err(|cause| ApiError::Invalid(cause.to_string()))
}

fn accepted(task: &FullTask) -> Response {
    (StatusCode::ACCEPTED, Json(FullView(task))).into_response()
}
