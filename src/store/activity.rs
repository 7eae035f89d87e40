//! The [`ActivityStore`] trait, through which taskcast stores and reads activity events.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    activity::{Event, Origin, Pattern, Report},
    feed::Position,
    task::{Timestamp, Viewer},
};

/// A store of activity events. Its positions are in one order, which has nothing to do with the order of the changes of tasks.
#[async_trait]
pub trait ActivityStore: Send + Sync + fmt::Debug + 'static {
    /// Stores all events of a batch, or none of them. They are durable when this returns.
    async fn append(&self, batch: EventBatch) -> Result<Appended, AppendError>;

    /// One page of the events that `viewer` may see, newest first.
    async fn events(&self, viewer: &Viewer, query: &EventQuery) -> Result<EventPage, StoreError>;

    /// Removes the oldest events that were stored before their limit, and forgets their idempotency keys. One call removes a limited
    /// number of events. Returns whether the caller should continue at once, because there may be more.
    async fn prune(&self, limits: RetentionLimits) -> Result<bool, StoreError>;
}

/// The events that one request reports.
#[derive(Clone, Debug)]
pub struct EventBatch {
    pub origin: Origin,
    pub events: Vec<NewEvent>,
}

#[derive(Clone, Debug)]
pub struct NewEvent {
    pub report: Report,
    /// Events of this type are kept for a shorter time, and `*` does not match them.
    pub high_volume: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The number of events that were stored.
    pub accepted: usize,
    /// The number of events that had been stored before, with the same idempotency key.
    pub duplicates: usize,
    /// The position of the newest event of the batch.
    pub last: Position,
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The event with this index in the batch has the idempotency key of an earlier event of its reporter, but another content.
    #[error("an event with this id was reported before, with another content")]
    Conflict { index: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A selection of events.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// The events that at least one of these patterns matches. Without a pattern, these are the events that `*` matches.
    pub patterns: Vec<Pattern>,
    /// The events of these projects. Without a project, these are the events of all projects, and those without a project.
    pub projects: Vec<Arc<str>>,
    /// The events after this position.
    pub since: Option<Position>,
    /// The events before this position.
    pub before: Option<Position>,
    /// The maximum number of events of the page.
    pub limit: usize,
}

/// Some events, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// The `before` of the next page. `None` means that this is the last page. A page may have few events although more pages follow,
    /// because a store examines a limited number of events for each page.
    pub next: Option<Position>,
}

/// Events that were stored before these times are no longer kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionLimits {
    pub events: Timestamp,
    pub high_volume: Timestamp,
}

impl EventQuery {
    /// Returns whether the query selects an event, whatever its position is.
    pub fn selects(&self, event: &Event, high_volume: bool) -> bool {
        let of_pattern = match self.patterns.is_empty() {
            true => !high_volume,
            false => self.patterns.iter().any(|pattern| pattern.matches(&event.event_type, high_volume)),
        };
        let is_of_project = || {
            self.projects.is_empty() || event.project.as_ref().is_some_and(|id| self.projects.contains(id))
        };
        of_pattern && is_of_project()
    }
}
