//! Prepares the file of an earlier release: builds the index of its tasks if the index is missing or out of date.
//!
//! The migration changes nothing else, so an earlier release can use the file again. An earlier release raises the number of
//! the last change but does not update the index. This release then finds that the index is out of date, and builds it
//! again.

use std::{
    ops::Bound,
    time::{Duration, Instant},
};

use redb::{
    ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::{
    database::{Fault, LAST_SEQUENCE, META, TASKS},
    index::{COUNTS, Index, LISTS, LOOKUPS},
    ranges::Indexed,
    record,
};
use crate::task::DefaultOrg;

/// The format of the index. Files of the first release have no index.
pub(super) const FORMAT: u64 = 1;
/// In `meta`: the format of the index.
pub(super) const FORMAT_KEY: &str = "format";
/// In `meta`: the number of the last change that the index contains.
pub(super) const INDEXED_SEQUENCE: &str = "indexedSequence";

/// The progress of indexing. The key is the format and the number of the last change at that time; the value is the id of the
/// last indexed task.
const INDEXING: TableDefinition<(u64, u64), &str> = TableDefinition::new("indexing");
/// How many tasks one transaction indexes. This limits its memory, and the work that an interruption loses.
const CHUNK: usize = 5000;
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How many tasks have been indexed, and how many of them can't be read.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) done: u64,
    unreadable: u64,
}

/// Indexes the tasks in several transactions. If the process ends before the last one, the next start continues.
pub(super) fn migrate(db: &redb::Database) -> Result<(), Fault> {
    if is_current(&db.begin_read()?)? {
        return Ok(());
    }
    let (begun, mut logged_at) = (Instant::now(), Instant::now());
    let mut progress = Progress::default();
    loop {
        let txn = db.begin_write()?;
        let total = txn.open_table(TASKS)?.len()?;
        let is_done = index_chunk(&txn, CHUNK, &mut progress)?;
        txn.commit()?;
        let Progress { done, unreadable } = progress;
        if is_done {
            if total > 0 {
                tracing::info!(
                    tasks = done,
                    seconds = begun.elapsed().as_secs(),
                    "the tasks of an earlier release are indexed"
                );
            }
            if unreadable > 0 {
                tracing::warn!(
                    unreadable,
                    "documents can't be read as tasks; they are kept, but no list shows them"
                );
            }
            return Ok(());
        }
        if logged_at.elapsed() >= LOG_INTERVAL {
            logged_at = Instant::now();
            tracing::info!(
                done,
                total,
                "indexing the tasks of an earlier release; the gateway starts when that is done"
            );
        }
    }
}

fn is_current(txn: &ReadTransaction) -> Result<bool, Fault> {
    let meta = txn.open_table(META)?;
    let number = |name| Ok::<_, Fault>(meta.get(name)?.map(|number| number.value()));
    let format = number(FORMAT_KEY)?.unwrap_or_default();
    if format > FORMAT {
        return Err(Fault::Newer(format));
    }
    Ok(format == FORMAT && number(INDEXED_SEQUENCE)? == Some(number(LAST_SEQUENCE)?.unwrap_or_default()))
}

/// Indexes the next `limit` tasks. Returns whether these were the last ones.
pub(super) fn index_chunk(
    txn: &WriteTransaction,
    limit: usize,
    progress: &mut Progress,
) -> Result<bool, Fault> {
    let mut meta = txn.open_table(META)?;
    let sequence = meta.get(LAST_SEQUENCE)?.map_or(0, |number| number.value());
    let after = indexed_so_far(txn, sequence)?;
    let mut index = Index::open(txn)?;
    let tasks = txn.open_table(TASKS)?;
    let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    let mut count = 0;
    for item in tasks.range::<&str>((start, Bound::Unbounded))?.take(limit) {
        let (key, document) = item?;
        match indexed(key.value(), document.value()) {
            Some(task) => index.update(None, Some(&task))?,
            None => progress.unreadable += 1,
        }
        last = Some(key.value().to_owned());
        count += 1;
    }
    progress.done += count as u64;
    let is_done = count < limit;
    let mut indexing = txn.open_table(INDEXING)?;
    if is_done {
        meta.insert(FORMAT_KEY, FORMAT)?;
        meta.insert(INDEXED_SEQUENCE, sequence)?;
        indexing.remove((FORMAT, sequence))?;
    } else if let Some(last) = last {
        indexing.insert((FORMAT, sequence), &*last)?;
    }
    Ok(is_done)
}

/// Returns the id of the last indexed task. `None` means that indexing starts from the beginning, with empty tables.
fn indexed_so_far(txn: &WriteTransaction, sequence: u64) -> Result<Option<String>, Fault> {
    let mut indexing = txn.open_table(INDEXING)?;
    if let Some(last) = indexing.get((FORMAT, sequence))? {
        return Ok(Some(last.value().to_owned()));
    }
    // The index, if there is one, has another format, or an earlier release has changed tasks since it was built.
    while indexing.pop_first()?.is_some() {}
    txn.delete_table(LISTS)?;
    txn.delete_table(COUNTS)?;
    txn.delete_table(LOOKUPS)?;
    Ok(None)
}

/// Returns `None` if the document can't be read as a task.
fn indexed(key: &str, document: &[u8]) -> Option<Indexed> {
    let document = record::decode(document).ok()?;
    let task = record::task(document.clone(), &DefaultOrg(None)).ok()?;
    Indexed::of(key, &task, &document)
}
