//! Reads snapshots for joins. Joins that need the same snapshot at the same moment share one read and one encoded state.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    config::{DashboardShape, LimitsConfig},
    metrics::Metrics,
    store::{AccessSnapshot, DashboardSnapshot, Store, StoreError, TaskSnapshot},
    task::{Counts, FullView, Summary, TaskId, Viewer, Window},
    wire::{Message, emitted},
};

use super::single_flight::SingleFlight;

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

#[derive(Debug)]
pub struct Snapshots {
    store: Arc<dyn Store>,
    dashboard_limit: usize,
    /// The part of a timeline that a `task:state` contains.
    timeline: Window,
    metrics: Arc<Metrics>,
    accesses: SingleFlight<TaskId, AccessSnapshot>,
    tasks: SingleFlight<TaskId, LoadedTask>,
    dashboards: SingleFlight<Viewer, LoadedDashboard>,
    /// The dashboards that are still in use, so that viewers with the same snapshot get the same encoded state.
    loaded: Mutex<Loaded>,
}

/// Dashboards by the address of their snapshot.
#[derive(Debug, Default)]
struct Loaded {
    all: HashMap<usize, Weak<LoadedDashboard>>,
    /// At this size, entries that are no longer in use are removed. It is twice the number that the last removal left.
    enough: usize,
}

/// Nothing is removed from a map that is smaller.
const FEW: usize = 16;

impl Loaded {
    fn of(&mut self, snapshot: Arc<DashboardSnapshot>) -> Arc<LoadedDashboard> {
        let address = Arc::as_ptr(&snapshot) as usize;
        // An entry that is in use keeps its snapshot alive, so no other snapshot can have this address.
        if let Some(known) = self.all.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        if self.all.len() >= self.enough.max(FEW) {
            self.all.retain(|_, loaded| loaded.strong_count() > 0);
            self.all.shrink_to(self.all.len() * 2);
            self.enough = self.all.len() * 2;
        }
        let loaded = Arc::new(LoadedDashboard { snapshot, state: OnceLock::new() });
        self.all.insert(address, Arc::downgrade(&loaded));
        loaded
    }
}

impl Snapshots {
    pub fn new(store: Arc<dyn Store>, limits: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        let (accesses, tasks, dashboards) =
            (SingleFlight::default(), SingleFlight::default(), SingleFlight::default());
        let loaded = Mutex::default();
        let (dashboard_limit, timeline) = (limits.dashboard_limit, Window::newest(limits.timeline_limit));
        Self { store, dashboard_limit, timeline, metrics, accesses, tasks, dashboards, loaded }
    }

    /// Reads who may see a task. Nothing else is read for a viewer who may not see the task. The flag says whether the read may have
    /// begun before this call.
    pub async fn access(&self, id: &TaskId, fresh: bool) -> Result<(Arc<AccessSnapshot>, bool), StoreError> {
        self.accesses.share(id, fresh, async { self.store.access(id).await.map(Arc::new) }).await
    }

    /// The flag has the same meaning as in [`Snapshots::access`].
    pub async fn task(&self, id: &TaskId, fresh: bool) -> Result<(Arc<LoadedTask>, bool), StoreError> {
        let read = async {
            let snapshot = self.store.task_part(id, self.timeline).await?;
            Ok(Arc::new(LoadedTask { snapshot, state: OnceLock::new() }))
        };
        let (loaded, shared) = self.tasks.share(id, fresh, read).await?;
        self.count("task", shared);
        Ok((loaded, shared))
    }

    pub async fn dashboard(&self, viewer: &Viewer, fresh: bool) -> Result<Arc<LoadedDashboard>, StoreError> {
        let read = async {
            let snapshot = self.store.dashboard(viewer, self.dashboard_limit).await?;
            Ok(self.loaded(snapshot))
        };
        let (loaded, shared) = self.dashboards.share(viewer, fresh, read).await?;
        self.count("dashboard", shared);
        Ok(loaded)
    }

    fn loaded(&self, snapshot: Arc<DashboardSnapshot>) -> Arc<LoadedDashboard> {
        self.loaded.lock().of(snapshot)
    }

    fn count(&self, room: &'static str, shared: bool) {
        self.metrics.relay.snapshots.inc([room, if shared { "shared" } else { "own" }]);
    }
}

impl LoadedTask {
    /// `None` means that there is no such task.
    pub fn state(&self) -> Option<&Message> {
        let task = self.snapshot.task.as_ref()?;
        Some(self.state.get_or_init(|| {
            let event_id = self.snapshot.position.to_string();
            Message::event(emitted::TASK_STATE, &State { view: FullView(task), event_id })
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

    /// An array can't carry its `eventId`, so a second argument carries it.
    pub fn state(&self, shape: DashboardShape) -> &Message {
        self.state.get_or_init(|| match shape {
            DashboardShape::Array => {
                Message::event_with(emitted::DASHBOARD_STATE, &self.summaries(), &self.body(false))
            }
            DashboardShape::Object => Message::event(emitted::DASHBOARD_STATE, &self.body(true)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::Position;

    fn snapshot() -> Arc<DashboardSnapshot> {
        let (org_counts, own_counts) = (Counts::default(), Counts::default());
        Arc::new(DashboardSnapshot { tasks: Vec::new(), org_counts, own_counts, position: Position::ZERO })
    }

    #[test]
    fn viewers_with_the_same_snapshot_share_its_encoded_state_while_it_is_in_use() {
        let mut loaded = Loaded::default();
        let snapshots: Vec<_> = (0..1000).map(|_| snapshot()).collect();
        let all: Vec<_> = snapshots.iter().map(|snapshot| loaded.of(snapshot.clone())).collect();
        for (snapshot, known) in snapshots.iter().zip(&all) {
            assert!(Arc::ptr_eq(&loaded.of(snapshot.clone()), known));
        }
        assert_eq!(loaded.all.len(), 1000);
        drop(all);
        let others: Vec<_> = (0..1000).map(|_| snapshot()).collect();
        for snapshot in others {
            loaded.of(snapshot);
        }
        assert!(loaded.all.len() <= FEW + 1, "{}", loaded.all.len());
    }
}
