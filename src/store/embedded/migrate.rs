//! What a file has to go through before this release uses it: its tasks are indexed, unless they are.
//!
//! Nothing else is changed, so an earlier release can use the file again. It knows nothing of the index and counts its
//! changes on, so that the index is seen to be out of date, and made anew, when this release comes back.

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
    index::{COUNTS, FINDS, Index, LISTS},
    ranges::Indexed,
    record,
};
use crate::task::DefaultOrg;

/// Of the index. Files of the first release have none.
pub(super) const FORMAT: u64 = 1;
/// In `meta`: the format of the index.
pub(super) const FORMAT_NAME: &str = "format";
/// In `meta`: the number of the last change that the index contains.
pub(super) const INDEXED: &str = "indexedSequence";

/// How far the indexing of a file has come: by the format and the number of the last change then, the id of the last
/// task that is indexed.
const INDEXING: TableDefinition<(u64, u64), &str> = TableDefinition::new("indexing");
/// So many are indexed in one transaction: its memory has a bound, and an interruption costs little.
const CHUNK: usize = 5000;
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// What indexing a file has come to.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) done: u64,
    unreadable: u64,
}

/// Indexes the tasks, a part of them in each transaction. Interrupted, it is continued by the next start.
pub(super) fn bring_up_to_date(db: &redb::Database) -> Result<(), Fault> {
    if is_current(&db.begin_read()?)? {
        return Ok(());
    }
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut progress = Progress::default();
    loop {
        let txn = db.begin_write()?;
        let total = txn.open_table(TASKS)?.len()?;
        let is_done = index_some(&txn, CHUNK, &mut progress)?;
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
        if told.elapsed() >= BETWEEN_LINES {
            told = Instant::now();
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
    let format = number(FORMAT_NAME)?.unwrap_or_default();
    if format > FORMAT {
        return Err(Fault::Newer(format));
    }
    Ok(format == FORMAT && number(INDEXED)? == Some(number(LAST_SEQUENCE)?.unwrap_or_default()))
}

/// Indexes the next `most` tasks; whether those were the last.
pub(super) fn index_some(
    txn: &WriteTransaction,
    most: usize,
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
    for item in tasks.range::<&str>((start, Bound::Unbounded))?.take(most) {
        let (key, document) = item?;
        match indexed(key.value(), document.value()) {
            Some(task) => index.change(None, Some(&task))?,
            None => progress.unreadable += 1,
        }
        last = Some(key.value().to_owned());
        count += 1;
    }
    progress.done += count as u64;
    let is_done = count < most;
    let mut indexing = txn.open_table(INDEXING)?;
    if is_done {
        meta.insert(FORMAT_NAME, FORMAT)?;
        meta.insert(INDEXED, sequence)?;
        indexing.remove((FORMAT, sequence))?;
    } else if let Some(last) = last {
        indexing.insert((FORMAT, sequence), &*last)?;
    }
    Ok(is_done)
}

/// The id of the last task that is indexed. None: a beginning, with empty tables.
fn indexed_so_far(txn: &WriteTransaction, sequence: u64) -> Result<Option<String>, Fault> {
    let mut indexing = txn.open_table(INDEXING)?;
    if let Some(last) = indexing.get((FORMAT, sequence))? {
        return Ok(Some(last.value().to_owned()));
    }
    // An index of another format, or of tasks that an earlier release has changed since.
    while indexing.pop_first()?.is_some() {}
    txn.delete_table(LISTS)?;
    txn.delete_table(COUNTS)?;
    txn.delete_table(FINDS)?;
    Ok(None)
}

/// None: the document can't be read as a task.
fn indexed(key: &str, document: &[u8]) -> Option<Indexed> {
    let document = record::decode(document).ok()?;
    let task = record::task(document.clone(), &DefaultOrg(None)).ok()?;
    Indexed::of(key, &task, &document)
}
