//! A wrapper around a store that measures the duration and the failures of its operations.

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    AccessSnapshot, ChangeStreamStatus, Cursor, DashboardSnapshot, Delivered, Page, Store, StoreError,
    TaskFilter, TaskSnapshot, TaskWrite, WriteError, WriteOutcome, WriteRequest,
};
use crate::{
    feed::FeedItem,
    github::Delivery,
    metrics::{Metrics, StoreFailure, StoreMetrics, StoreOperation},
    task::{OrgId, TaskId, UserId, Viewer, Window},
};

#[derive(Debug)]
pub struct MeasuredStore {
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
}

/// How an error counts in the metrics. `None` means that the caller caused the error, not the store.
trait Failure {
    fn failure(&self) -> Option<StoreFailure>;
}

impl Failure for StoreError {
    fn failure(&self) -> Option<StoreFailure> {
        Some(match self {
            Self::Unavailable(_) => StoreFailure::Unavailable,
            Self::Denied(_) => StoreFailure::Denied,
            Self::Unusable(_) => StoreFailure::Unusable,
            Self::Document(_) => StoreFailure::Document,
        })
    }
}

impl Failure for WriteError {
    fn failure(&self) -> Option<StoreFailure> {
        match self {
            Self::Store(error) => error.failure(),
            Self::NotFound | Self::Conflict(_) | Self::Changed | Self::KeyInUse | Self::KeyReused => None,
        }
    }
}

impl MeasuredStore {
    async fn measure<T, E: Failure>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let metrics: &StoreMetrics = &self.metrics.store;
        let begun = Instant::now();
        let result = work.await;
        metrics.observe_duration(operation, begun.elapsed());
        if let Some(failure) = result.as_ref().err().and_then(Failure::failure) {
            metrics.count_failure(operation, failure);
        }
        result
    }
}

#[async_trait]
impl Store for MeasuredStore {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.store.prepare().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.measure(StoreOperation::Ping, self.store.ping()).await
    }

    async fn follow(&self, items: mpsc::Sender<FeedItem>, stop: CancellationToken) -> Result<(), StoreError> {
        self.store.follow(items, stop).await
    }

    fn stream(&self) -> Option<ChangeStreamStatus> {
        self.store.stream()
    }

    fn ambiguous_ids(&self) -> u64 {
        self.store.ambiguous_ids()
    }

    async fn oplog_window(&self) -> Option<Duration> {
        self.store.oplog_window().await
    }

    async fn close(&self) {
        self.store.close().await;
    }

    async fn accesses(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
        self.measure(StoreOperation::Access, self.store.accesses(ids)).await
    }

    async fn task_parts(
        &self,
        ids: &[TaskId],
        window: Window,
    ) -> Result<HashMap<TaskId, TaskSnapshot>, StoreError> {
        self.measure(StoreOperation::Task, self.store.task_parts(ids, window)).await
    }

    async fn dashboards(
        &self,
        org: Option<&OrgId>,
        users: &[UserId],
        limit: usize,
    ) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
        self.measure(StoreOperation::Dashboard, self.store.dashboards(org, users, limit)).await
    }

    async fn list(
        &self,
        viewer: &Viewer,
        filter: &TaskFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.measure(StoreOperation::List, self.store.list(viewer, filter, cursor, limit)).await
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteOutcome, WriteError> {
        let operation = match &request.write {
            TaskWrite::Create { .. } => StoreOperation::Create,
            TaskWrite::Clarify { .. } => StoreOperation::Clarify,
            TaskWrite::Patch { .. } => StoreOperation::Patch,
        };
        self.measure(operation, self.store.write(request)).await
    }

    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, WriteError> {
        self.measure(StoreOperation::Deliver, self.store.deliver(delivery)).await
    }
}
