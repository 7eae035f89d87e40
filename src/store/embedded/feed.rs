//! Reads the log of changes as a feed.

use std::sync::Arc;

use redb::ReadableDatabase;
use tokio::sync::{mpsc, watch};

use super::{
    database::{self, Database, Fault, LOG},
    read,
    record::LogEntry,
};
use crate::{
    feed::{Change, FeedItem, GapReason, Position},
    store::StoreError,
    task::DefaultOrg,
};

/// The follower reads this many changes, or changes of about [`MAX_CHUNK_BYTES`], before it passes on the first.
const MAX_CHUNK_CHANGES: usize = 256;
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// The pause between two attempts while the file can't be read.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Passes on the changes in the log, from the oldest entry on, each once.
pub(super) struct Follower {
    database: Arc<Database>,
    default_org: DefaultOrg,
    committed: watch::Receiver<u64>,
    items: mpsc::Sender<FeedItem>,
    /// The number of the next change to pass on. `None` before the first read.
    next: Option<u64>,
}

/// Changes that follow each other in the log.
struct Chunk {
    /// The number of the first of `changes`. If there are none, the number of the next change.
    start: u64,
    changes: Vec<Change>,
}

impl Follower {
    pub(super) fn new(
        database: Arc<Database>,
        default_org: DefaultOrg,
        committed: watch::Receiver<u64>,
        items: mpsc::Sender<FeedItem>,
    ) -> Self {
        Self { database, default_org, committed, items, next: None }
    }

    /// Runs until the receiver is dropped.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        loop {
            // `mark_unchanged` comes before the read, so that a commit during the read wakes the follower again.
            self.committed.mark_unchanged();
            let chunk = match self.read().await {
                Ok(chunk) => chunk,
                Err(error) if error.is_temporary() => {
                    tracing::warn!(%error, "the log of changes can't be read; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_at_end = chunk.changes.is_empty();
            if !self.send_chunk(chunk).await {
                return Ok(());
            }
            if is_at_end {
                tokio::select! {
                    changed = self.committed.changed() => if changed.is_err() { return Ok(()) },
                    () = self.items.closed() => return Ok(()),
                }
            }
        }
    }

    async fn read(&self) -> Result<Chunk, StoreError> {
        let (default_org, from) = (self.default_org.clone(), self.next.unwrap_or(0));
        database::blocking(&self.database, move |db| read_chunk(db, from, &default_org)).await
    }

    /// Returns false if the receiver is dropped.
    async fn send_chunk(&mut self, chunk: Chunk) -> bool {
        if self.next.is_some_and(|next| next != chunk.start)
            && self.items.send(FeedItem::Gap(GapReason::LogCut)).await.is_err()
        {
            return false;
        }
        let opened = self.next != Some(chunk.start);
        if opened && self.items.send(FeedItem::Opened(Position::before(chunk.start))).await.is_err() {
            return false;
        }
        self.next = Some(chunk.start + chunk.changes.len() as u64);
        for change in chunk.changes {
            if self.items.send(FeedItem::Change(Box::new(change))).await.is_err() {
                return false;
            }
        }
        // The end of the last change that was sent.
        let position = Position::before(self.next.unwrap_or(0));
        self.items.send(FeedItem::Idle(position)).await.is_ok()
    }
}

fn read_chunk(db: &redb::Database, from: u64, default_org: &DefaultOrg) -> Result<Chunk, Fault> {
    let txn = db.begin_read()?;
    let mut chunk = Chunk { start: read::last_sequence(&txn)? + 1, changes: Vec::new() };
    let mut bytes = 0;
    for item in txn.open_table(LOG)?.range(from..)? {
        let (sequence, entry) = item?;
        let (sequence, entry) = (sequence.value(), entry.value());
        if chunk.changes.is_empty() {
            chunk.start = sequence;
        }
        let parsed: LogEntry = serde_json::from_slice(entry)?;
        chunk.changes.push(parsed.into_change(sequence, default_org)?);
        bytes += entry.len();
        if chunk.changes.len() >= MAX_CHUNK_CHANGES || bytes >= MAX_CHUNK_BYTES {
            break;
        }
    }
    Ok(chunk)
}
