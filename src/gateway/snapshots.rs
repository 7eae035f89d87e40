//! Reads for joins: many that ask for the same at the same moment share one read and one encoded state.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde::Serialize;
use tokio::sync::OnceCell;

use crate::{
    config::DashboardShape,
    metrics::Metrics,
    protocol::{Packet, emitted, event, event_with},
    store::{AccessSnapshot, DashboardSnapshot, Store, StoreError, TaskSnapshot},
    task::{Counts, FullView, Summary, TaskId, Viewer},
};

/// A task, and its `task:state` once it is needed.
#[derive(Debug)]
pub struct LoadedTask {
    pub snapshot: TaskSnapshot,
    state: OnceLock<Packet>,
}

/// A viewer's dashboard, and its `dashboard:state` once it is needed.
#[derive(Debug)]
pub struct LoadedDashboard {
    pub snapshot: DashboardSnapshot,
    state: OnceLock<Packet>,
}

#[derive(Debug)]
pub struct Snapshots {
    store: Arc<dyn Store>,
    dashboard_limit: usize,
    metrics: Arc<Metrics>,
    accesses: Flights<TaskId, AccessSnapshot>,
    tasks: Flights<TaskId, LoadedTask>,
    dashboards: Flights<Viewer, LoadedDashboard>,
}

impl Snapshots {
    pub fn new(store: Arc<dyn Store>, dashboard_limit: usize, metrics: Arc<Metrics>) -> Self {
        let (accesses, tasks, dashboards) = (Flights::default(), Flights::default(), Flights::default());
        Self { store, dashboard_limit, metrics, accesses, tasks, dashboards }
    }

    /// Who may see a task: all that is read for who may not. The flag says whether the read may have begun before
    /// this call.
    pub async fn access(&self, id: &TaskId, fresh: bool) -> Result<(Arc<AccessSnapshot>, bool), StoreError> {
        self.accesses.share(id, fresh, self.store.access(id)).await
    }

    /// The flag is that of [`Snapshots::access`].
    pub async fn task(&self, id: &TaskId, fresh: bool) -> Result<(Arc<LoadedTask>, bool), StoreError> {
        let read = async {
            let snapshot = self.store.task(id).await?;
            Ok(LoadedTask { snapshot, state: OnceLock::new() })
        };
        let (loaded, shared) = self.tasks.share(id, fresh, read).await?;
        self.count("task", shared);
        Ok((loaded, shared))
    }

    pub async fn dashboard(&self, viewer: &Viewer, fresh: bool) -> Result<Arc<LoadedDashboard>, StoreError> {
        let read = async {
            let snapshot = self.store.dashboard(viewer, self.dashboard_limit).await?;
            Ok(LoadedDashboard { snapshot, state: OnceLock::new() })
        };
        let (loaded, shared) = self.dashboards.share(viewer, fresh, read).await?;
        self.count("dashboard", shared);
        Ok(loaded)
    }

    fn count(&self, room: &'static str, shared: bool) {
        self.metrics.relay.snapshots.inc([room, if shared { "shared" } else { "own" }]);
    }
}

impl LoadedTask {
    /// None when there is no such task.
    pub fn state(&self) -> Option<&Packet> {
        let task = self.snapshot.task.as_ref()?;
        Some(self.state.get_or_init(|| {
            let event_id = self.snapshot.position.to_string();
            event(emitted::TASK_STATE, &State { view: FullView(task), event_id })
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

/// What comes with the tasks of a dashboard.
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

    /// An array can't carry its `eventId`, so that goes with it as a second argument.
    pub fn state(&self, shape: DashboardShape) -> &Packet {
        self.state.get_or_init(|| match shape {
            DashboardShape::Array => {
                event_with(emitted::DASHBOARD_STATE, &self.summaries(), &self.body(false))
            }
            DashboardShape::Object => event(emitted::DASHBOARD_STATE, &self.body(true)),
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

/// Reads that are under way.
#[derive(Debug)]
struct Flights<K, V>(Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V> Flights<K, V> {
    async fn share(
        &self,
        key: &K,
        fresh: bool,
        read: impl Future<Output = Result<V, StoreError>>,
    ) -> Result<(Arc<V>, bool), StoreError> {
        if fresh {
            return Ok((Arc::new(read.await?), false));
        }
        let (flight, shared) = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(key) {
                Some(flight) => (flight.clone(), true),
                None => (flights.entry(key.clone()).or_default().clone(), false),
            }
        };
        let value = flight.get_or_try_init(|| async { read.await.map(Arc::new) }).await.cloned();
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(key).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
            flights.remove(key);
        }
        value.map(|value| (value, shared))
    }
}
