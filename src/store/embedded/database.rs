//! The file: where it is, who may open it, and what becomes of it after an I/O error.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use redb::TableDefinition;

use super::migrate::FORMAT;
use crate::{store::StoreError, task::DocumentError};

/// By task id: the document without `events`.
pub(super) const TASKS: TableDefinition<&str, &[u8]> = TableDefinition::new("tasks");
/// By task id and place: one entry of `events`.
pub(super) const TIMELINE: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("timeline");
/// By sequence number: a [`LogEntry`](super::record::LogEntry).
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// By day since 1970 and delivery id: what GitHub has delivered.
pub(super) const DELIVERIES: TableDefinition<(u64, &str), ()> = TableDefinition::new("deliveries");
/// By key and id: a [`Fact`](crate::github::Fact) that GitHub's deliveries have taught.
pub(super) const FACTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("githubFacts");
/// By day since 1970, key and id: the facts that are forgotten some day.
pub(super) const FACT_DAYS: TableDefinition<(u64, &str, &str), ()> = TableDefinition::new("githubFactDays");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// In `meta`: the number of the last change.
pub(super) const LAST_SEQUENCE: &str = "lastSequence";
/// In `meta`: how many bytes of entries the log holds.
pub(super) const LOG_BYTES: &str = "logBytes";

const FILE: &str = "tasks.redb";
/// What is known of damage that redb finds by failing an assertion.
const DAMAGED: &str = "it is damaged";
/// The default of redb is 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

/// The open file, and the lock on its folder.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// None after an I/O error, until the next use opens it again: redb refuses everything after one.
    file: Mutex<Option<Arc<redb::Database>>>,
    /// Held for as long as the store lives. A lock of its own, because a new file is made beside its final name.
    _lock: File,
}

/// Why a transaction did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Transaction(#[from] redb::TransactionError),
    #[error(transparent)]
    Table(#[from] redb::TableError),
    #[error(transparent)]
    Storage(#[from] redb::StorageError),
    #[error(transparent)]
    Commit(#[from] redb::CommitError),
    #[error("a record is damaged: {0}")]
    Record(#[from] serde_json::Error),
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The format of the file's index.
    #[error(
        "a newer taskcast wrote it (format {0}; this one knows up to {known}). Start that release again, or restore a backup \
         from before the upgrade",
        known = FORMAT
    )]
    Newer(u64),
}

impl Database {
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let lock = lock(data_dir)?;
        let path = data_dir.join(FILE);
        if !path.exists() {
            create(&path).map_err(|cause| unusable_file(&path, &cause))?;
        }
        let file = open_file(&path)?;
        Ok(Self { path, file: Mutex::new(Some(Arc::new(file))), _lock: lock })
    }

    /// Runs `work` on the open file. Some damage is found by redb's assertions only.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let file = self.file()?;
        match catch_unwind(AssertUnwindSafe(|| work(&file))) {
            Ok(result) => result.map_err(|fault| self.failed(&file, fault)),
            Err(_) => Err(unusable_file(&self.path, &DAMAGED)),
        }
    }

    /// While a process starts, nobody waits for what passes: a full disk is told to the person who starts it.
    pub(super) fn unusable_at_start(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(cause) => StoreError::Unusable(format!(
                "{cause}. This user must be able to read and write it, with room on the disk: the index that this release adds \
                 takes about as much as the tasks"
            )),
            other => other,
        }
    }

    fn file(&self) -> Result<Arc<redb::Database>, StoreError> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(file) => Ok(file.clone()),
            None => {
                let file = Arc::new(reopen(&self.path)?);
                *slot = Some(file.clone());
                Ok(file)
            }
        }
    }

    fn failed(&self, file: &Arc<redb::Database>, fault: Fault) -> StoreError {
        let error = match fault {
            Fault::Transaction(error) => redb::Error::from(error),
            Fault::Table(error) => error.into(),
            Fault::Storage(error) => error.into(),
            Fault::Commit(error) => error.into(),
            Fault::Record(_) => return unusable_file(&self.path, &fault),
            Fault::Newer(_) => {
                return StoreError::Unusable(format!("{} can't be used: {fault}", self.path.display()));
            }
            Fault::Document(error) => return StoreError::Document(error),
        };
        match error {
            redb::Error::Corrupted(_) => unusable_file(&self.path, &error),
            error => {
                let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
                slot.take_if(|open| Arc::ptr_eq(open, file));
                StoreError::Unavailable(format!("{}: {error}", self.path.display()))
            }
        }
    }
}

impl Drop for Database {
    /// Closing a damaged file may fail an assertion as well; there is nobody left to tell.
    fn drop(&mut self) {
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(file)));
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    database: &Arc<Database>,
    work: impl FnOnce(&redb::Database) -> Result<T, Fault> + Send + 'static,
) -> Result<T, StoreError> {
    let database = database.clone();
    tokio::task::spawn_blocking(move || database.run(work)).await.unwrap_or_else(|cause| {
        Err(StoreError::Unavailable(format!("a transaction was broken off: {cause}")))
    })
}

fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let unusable = |cause: io::Error| {
        StoreError::Unusable(format!(
            "DATA_DIR {} can't be used: {cause}. Give a folder that this user may write to",
            data_dir.display()
        ))
    };
    make_private_dir(data_dir).map_err(unusable)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(data_dir.join("lock"))
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "DATA_DIR {} is in use by another process. Stop it, give this one another DATA_DIR, or use MONGODB_URI \
             for several nodes",
            data_dir.display()
        ))),
        Err(TryLockError::Error(cause)) => Err(unusable(cause)),
    }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a new file beside its name and moves it there whole: a crash leaves either no store or an empty one.
fn create(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause.into()),
        _ => {}
    }
    let database = redb::Database::create(&unfinished)?;
    let txn = database.begin_write()?;
    txn.open_table(TASKS)?;
    txn.open_table(TIMELINE)?;
    txn.open_table(LOG)?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(LAST_SEQUENCE, first_sequence())?;
        meta.insert(LOG_BYTES, 0)?;
        // Its empty tables are made as those of an earlier release are filled.
    }
    txn.commit()?;
    drop(database);
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// So far ahead that the positions of a store that was lost and made anew are later than those that clients
/// still remember.
fn first_sequence() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()) << 32
}

fn open_file(path: &Path) -> Result<redb::Database, StoreError> {
    attempt(path)?.map_err(|cause| match &cause {
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() != io::ErrorKind::InvalidData => {
            StoreError::Unusable(format!(
                "{} can't be opened: {io}. This user must be able to read and write it, with room on the disk",
                path.display()
            ))
        }
        cause => unusable_file(path, cause),
    })
}

/// Fails in passing: the disk may still be full, transactions from before the I/O error may still hold the file.
fn reopen(path: &Path) -> Result<redb::Database, StoreError> {
    attempt(path)?.map_err(|cause| {
        StoreError::Unavailable(format!("{} can't be opened again yet: {cause}", path.display()))
    })
}

fn attempt(path: &Path) -> Result<Result<redb::Database, redb::DatabaseError>, StoreError> {
    catch_unwind(|| redb::Builder::new().set_cache_size(CACHE_BYTES).open(path))
        .map_err(|_| unusable_file(path, &DAMAGED))
}

fn unusable_file(path: &Path, cause: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!(
        "{} can't be used: {cause}. Restore it from a backup, or move it away to begin with an empty store",
        path.display()
    ))
}
