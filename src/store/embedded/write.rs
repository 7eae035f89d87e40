//! Writes. Each write is checked, made and logged in one transaction. Writes that wait for the disk at the same time share
//! a transaction.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::{database::Database, transaction::Tables};
use crate::{
    github::Delivery,
    store::{
        AppendError, Appended, Delivered, EventBatch, RetentionLimits, StoreError, WriteError, WriteOutcome,
        WriteRequest,
    },
    task::DefaultOrg,
};

/// The maximum number of writes that share a transaction.
const MAX_GROUP_SIZE: usize = 256;

/// One write that a caller waits for.
#[derive(Debug)]
pub(super) enum Write {
    Request(Box<WriteRequest>),
    Deliver(Box<Delivery>),
    Append(Box<EventBatch>),
    /// Remove activity events whose retention has ended.
    Prune(RetentionLimits),
}

/// The result of a write.
#[derive(Debug)]
pub(super) enum Written {
    Request(WriteOutcome),
    Delivery(Delivered),
    Appended(Result<Appended, AppendError>),
    /// Whether there may be more to remove.
    Pruned(bool),
}

pub(super) type Outcome = Result<Written, WriteError>;

/// A write, and the channel for its outcome.
type QueuedWrite = (Write, oneshot::Sender<Outcome>);

/// Runs one transaction at a time. The caller that holds `write_lock` also makes the writes of the callers that wait.
#[derive(Debug)]
pub(super) struct Writer {
    database: Arc<Database>,
    default_org: DefaultOrg,
    committed: watch::Sender<u64>,
    /// The waiting writes. The queue needs no limit, because each request in progress waits for its own write.
    queue: Arc<Mutex<VecDeque<QueuedWrite>>>,
    write_lock: Arc<tokio::sync::Mutex<()>>,
}

impl Writer {
    pub(super) fn new(
        database: Arc<Database>,
        default_org: DefaultOrg,
        committed: watch::Sender<u64>,
    ) -> Self {
        Self { database, default_org, committed, queue: Arc::default(), write_lock: Arc::default() }
    }

    /// If the caller drops this future before it has `write_lock`, the write is not made. After that, the write is made.
    pub(super) async fn write(&self, write: Write) -> Outcome {
        let (answer, mut outcome) = oneshot::channel();
        self.queue.lock().push_back((write, answer));
        loop {
            let write_lock = tokio::select! {
                biased;
                outcome = &mut outcome => return outcome.unwrap_or_else(|_| Err(shutting_down().into())),
                write_lock = self.write_lock.clone().lock_owned() => write_lock,
            };
            let (database, default_org, committed, queue) =
                (self.database.clone(), self.default_org.clone(), self.committed.clone(), self.queue.clone());
            let group = move || {
                let _write_lock = write_lock;
                let mut queue = queue.lock();
                let size = queue.len().min(MAX_GROUP_SIZE);
                let group = queue.drain(..size).collect();
                drop(queue);
                commit_group(&database, &default_org, &committed, group);
            };
            tokio::task::spawn_blocking(group).await.map_err(|_| shutting_down())?;
        }
    }
}

fn shutting_down() -> StoreError {
    StoreError::Unavailable("the process is ending".to_owned())
}

fn commit_group(
    database: &Database,
    default_org: &DefaultOrg,
    committed: &watch::Sender<u64>,
    group: Vec<QueuedWrite>,
) {
    let (writes, answers): (Vec<_>, Vec<_>) =
        group.into_iter().filter(|(_, answer)| !answer.is_closed()).unzip();
    if writes.is_empty() {
        return;
    }
    let result = database.run(|db| {
        let txn = db.begin_write()?;
        let (outcomes, last, changed) = Tables::open(&txn, default_org)?.apply(writes)?;
        if changed {
            txn.commit()?
        } else {
            txn.abort()?
        }
        Ok((outcomes, last))
    });
    match result {
        Ok((outcomes, last)) => {
            committed.send_replace(last);
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(outcome);
            }
        }
        Err(error) => {
            // The transaction may or may not have reached the disk, so the followers read the log again.
            committed.send_modify(|_| ());
            for answer in answers {
                let _ = answer.send(Err(clone_error(&error).into()));
            }
        }
    }
}

fn clone_error(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        other => StoreError::Unusable(other.to_string()),
    }
}
