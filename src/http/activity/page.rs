//! Reads pages of events, newest first.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::Member;
use crate::{
    activity::{ClientForm, Pattern},
    feed::Position,
    http::{
        ApiError, HttpState,
        parameters::{Parameters, known_parameters, limit},
    },
    store::EventQuery,
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
const MAX_PATTERNS: usize = 64;
const MAX_PROJECTS: usize = 64;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    events: Vec<ClientForm<'a>>,
    next_cursor: Option<Position>,
}

pub(super) async fn page(
    State(state): State<HttpState>,
    Member(identity): Member,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let query = parse(parameters)?;
    let page = state.reporting()?.store.events(&identity.viewer, &query).await?;
    let body = Body { events: page.events.iter().map(ClientForm).collect(), next_cursor: page.next };
    Ok(Json(body).into_response())
}

fn parse(parameters: Parameters) -> Result<EventQuery, ApiError> {
    let mut query = EventQuery { limit: DEFAULT_LIMIT, ..EventQuery::default() };
    let names = ["events", "projects", "since", "before", "limit"];
    for (name, value) in known_parameters(parameters, &names)? {
        match &*name {
            "events" => query.patterns = patterns(&value)?,
            "projects" => query.projects = projects(&value)?,
            "since" => query.since = Some(position("since", &value)?),
            "before" => query.before = Some(position("before", &value)?),
            _ => query.limit = limit(&value, 1..=MAX_LIMIT)?,
        }
    }
    Ok(query)
}

fn patterns(text: &str) -> Result<Vec<Pattern>, ApiError> {
    let patterns: Result<Vec<Pattern>, _> = items(text).map(Pattern::parse).collect();
    let patterns = patterns.map_err(|error| ApiError::Invalid(format!("events: a pattern {error}")))?;
    match patterns.len() {
        0..=MAX_PATTERNS => Ok(patterns),
        _ => Err(ApiError::Invalid(format!("events must have at most {MAX_PATTERNS} patterns"))),
    }
}

fn projects(text: &str) -> Result<Vec<Arc<str>>, ApiError> {
    let projects: Vec<Arc<str>> = items(text).map(Arc::from).collect();
    match projects.len() {
        0..=MAX_PROJECTS => Ok(projects),
        _ => Err(ApiError::Invalid(format!("projects must have at most {MAX_PROJECTS} ids"))),
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn position(name: &str, text: &str) -> Result<Position, ApiError> {
    text.parse().map_err(|_| {
        ApiError::Invalid(format!("{name} must be an eventId, or the nextCursor of the page before"))
    })
}
