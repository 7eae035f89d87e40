//! Reads snapshots for joins. Joins that share a snapshot also share its encoded state.

use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::{
    config::{DashboardShape, LimitsConfig},
    metrics::{Metrics, RoomKind, SnapshotRead},
    store::{AccessSnapshot, Answered, BatchedReads, DashboardSnapshot, Store, StoreError, TaskSnapshot},
    task::{Counts, FullView, Summary, TaskId, Viewer, Window},
    wire::{Message, emitted},
};

/// A task, and its `task:state`, which is encoded when it is first needed.
#[derive(Debug)]
pub struct LoadedTask {
    pub snapshot: TaskSnapshot,
    state: OnceLock<Message>,
}

/// A dashboard, and its `dashboard:state`, which is encoded when it is first needed.
#[derive(Debug)]
pub struct LoadedDashboard {
    pub snapshot: Arc<DashboardSnapshot>,
    state: OnceLock<Message>,
}

impl From<TaskSnapshot> for LoadedTask {
    fn from(snapshot: TaskSnapshot) -> Self {
        Self { snapshot, state: OnceLock::new() }
    }
}

impl From<Arc<DashboardSnapshot>> for LoadedDashboard {
    fn from(snapshot: Arc<DashboardSnapshot>) -> Self {
        Self { snapshot, state: OnceLock::new() }
    }
}

#[derive(Debug)]
pub struct Snapshots {
    reads: BatchedReads<LoadedTask, LoadedDashboard>,
    dashboard_limit: usize,
    /// The part of a timeline that a `task:state` contains.
    timeline: Window,
    metrics: Arc<Metrics>,
}

impl Snapshots {
    pub fn new(store: Arc<dyn Store>, limits: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        let (dashboard_limit, timeline) = (limits.dashboard_limit, Window::newest(limits.timeline_limit));
        Self { reads: BatchedReads::new(store), dashboard_limit, timeline, metrics }
    }

    /// Reads who may see a task. Nothing else is read for a viewer who may not see the task.
    pub async fn access(&self, id: &TaskId) -> Result<Arc<AccessSnapshot>, StoreError> {
        self.reads.access(id).await
    }

    pub async fn task(&self, id: &TaskId) -> Result<Arc<LoadedTask>, StoreError> {
        Ok(self.counted(RoomKind::Task, self.reads.task_part(id, self.timeline).await?))
    }

    pub async fn dashboard(&self, viewer: &Viewer) -> Result<Arc<LoadedDashboard>, StoreError> {
        Ok(self.counted(RoomKind::Dashboard, self.reads.dashboard(viewer, self.dashboard_limit).await?))
    }

    fn counted<T>(&self, room: RoomKind, read: Answered<T>) -> T {
        self.metrics
            .relay
            .snapshots
            .inc((room, if read.is_own { SnapshotRead::Own } else { SnapshotRead::Shared }));
        read.answer
    }
}

impl LoadedTask {
    /// `None` means that there is no such task.
    pub fn state(&self) -> Option<&Message> {
        let task = self.snapshot.task.as_ref()?;
        Some(self.state.get_or_init(|| {
            let position = self.snapshot.position;
            let state = State { view: FullView(task), event_id: position.to_string() };
            Message::event(emitted::TASK_STATE, &state, position)
        }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<T: Serialize> {
    #[serde(flatten)]
    view: T,
    event_id: String,
}

/// A dashboard as an object: in `dashboard:state`, and in the acknowledgement of a join.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DashboardBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Summary<'a>>>,
    pub counts: Counts,
    pub event_id: String,
}

impl LoadedDashboard {
    pub fn counts(&self) -> Counts {
        self.snapshot.org_counts.plus(self.snapshot.own_counts)
    }

    /// An array can't carry its `eventId`, so other fields carry it beside the array.
    pub fn state(&self, shape: DashboardShape) -> &Message {
        let position = self.snapshot.position;
        self.state.get_or_init(|| match shape {
            DashboardShape::Array => Message::list_event(
                emitted::DASHBOARD_STATE,
                &self.summaries(),
                "tasks",
                &self.body(false),
                position,
            ),
            DashboardShape::Object => Message::event(emitted::DASHBOARD_STATE, &self.body(true), position),
        })
    }

    pub fn acknowledgement(&self) -> DashboardBody<'_> {
        DashboardBody { ok: Some(true), ..self.body(true) }
    }

    fn body(&self, with_tasks: bool) -> DashboardBody<'_> {
        DashboardBody {
            ok: None,
            tasks: with_tasks.then(|| self.summaries()),
            counts: self.counts(),
            event_id: self.snapshot.position.to_string(),
        }
    }

    fn summaries(&self) -> Vec<Summary<'_>> {
        self.snapshot.tasks.iter().map(Summary).collect()
    }
}
