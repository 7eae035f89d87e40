//! The database file: its location, the lock on its folder, and how it is opened again after an I/O error.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use redb::TableDefinition;

use super::migrate::FORMAT;
use crate::{store::StoreError, task::DocumentError};

/// By task id: the document without `events`.
pub(super) const TASKS: TableDefinition<&str, &[u8]> = TableDefinition::new("tasks");
/// By task id and index in the timeline: one entry of `events`.
pub(super) const TIMELINE: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("timeline");
/// By sequence number: a [`LogEntry`](super::record::LogEntry).
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// By day since 1970 and delivery id: what GitHub has delivered.
pub(super) const DELIVERIES: TableDefinition<(u64, &str), ()> = TableDefinition::new("deliveries");
/// By key and id: a [`Fact`](crate::github::Fact) learnt from GitHub's deliveries.
pub(super) const FACTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("githubFacts");
/// By day since 1970, key and id: the facts that expire.
pub(super) const FACT_DAYS: TableDefinition<(u64, &str, &str), ()> = TableDefinition::new("githubFactDays");
/// By the name of an idempotency key: the write that was made with it.
pub(super) const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("idempotencyKeys");
/// By milliseconds since 1970 and name: the idempotency keys, the oldest first.
pub(super) const KEY_TIMES: TableDefinition<(u64, &str), ()> = TableDefinition::new("idempotencyKeyTimes");
/// By task id: the number of the last change that clients in the task's room have learned of.
pub(super) const LAST_CHANGES: TableDefinition<&str, u64> = TableDefinition::new("lastChanges");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// In `meta`: the number of the last change.
pub(super) const LAST_SEQUENCE: &str = "lastSequence";
/// In `meta`: how many bytes of entries the log holds.
pub(super) const LOG_BYTES: &str = "logBytes";

const FILE_NAME: &str = "tasks.redb";
/// The cause in an error text when redb detects damage by a failed assertion.
const DAMAGED: &str = "it is damaged";
/// The size of redb's cache. The default of redb is 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

/// The open file, and the lock on its folder.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// `None` after an I/O error, until the next use opens the file again: redb refuses all operations after an I/O error.
    file: Mutex<Option<Arc<redb::Database>>>,
    /// Held as long as the store lives. The lock is a separate file, because a new database file is created under a
    /// temporary name.
    _lock: File,
}

/// Why a transaction failed.
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
    /// The format of the file's index, which this release does not know.
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
        let path = data_dir.join(FILE_NAME);
        if !path.exists() {
            create(&path).map_err(|cause| unusable_file(&path, &cause))?;
        }
        let file = open_file(&path)?;
        Ok(Self { path, file: Mutex::new(Some(Arc::new(file))), _lock: lock })
    }

    /// Runs `work` on the open file. Panics are caught, because redb detects some damage only by its assertions.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let file = self.file()?;
        match catch_unwind(AssertUnwindSafe(|| work(&file))) {
            Ok(result) => result.map_err(|fault| self.store_error(&file, fault)),
            Err(_) => Err(unusable_file(&self.path, &DAMAGED)),
        }
    }

    /// Makes a temporary failure final while the process starts. There is no retry: the operator who starts the process
    /// gets an error about a full disk, for example.
    pub(super) fn unusable_at_start(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(cause) => StoreError::Unusable(format!(
                "{cause}. This user must be able to read and write the file, and the disk needs free space: the index that this \
                 release adds takes about as much space as the tasks"
            )),
            other => other,
        }
    }

    fn file(&self) -> Result<Arc<redb::Database>, StoreError> {
        let mut slot = self.file.lock();
        match &*slot {
            Some(file) => Ok(file.clone()),
            None => {
                let file = Arc::new(reopen(&self.path)?);
                *slot = Some(file.clone());
                Ok(file)
            }
        }
    }

    fn store_error(&self, file: &Arc<redb::Database>, fault: Fault) -> StoreError {
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
                let mut slot = self.file.lock();
                slot.take_if(|open| Arc::ptr_eq(open, file));
                StoreError::Unavailable(format!("{}: {error}", self.path.display()))
            }
        }
    }
}

impl Drop for Database {
    /// Closing a damaged file may also fail an assertion of redb. No caller is left that could get an error.
    fn drop(&mut self) {
        let file = self.file.get_mut().take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(file)));
    }
}

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    database: &Arc<Database>,
    work: impl FnOnce(&redb::Database) -> Result<T, Fault> + Send + 'static,
) -> Result<T, StoreError> {
    let database = database.clone();
    tokio::task::spawn_blocking(move || database.run(work)).await.unwrap_or_else(|cause| {
        Err(StoreError::Unavailable(format!("a transaction was interrupted: {cause}")))
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

/// Creates a new file under a temporary name and renames it when it is complete. A crash leaves either no store or an
/// empty one.
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
        // `migrate.rs` creates the tables of the index, as it does for a file of an earlier release.
    }
    txn.commit()?;
    drop(database);
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The number from which a new store counts its changes. It grows with the time, so that a store that replaces a lost one
/// has later positions than those that clients still remember.
pub(super) fn first_sequence() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()) << 32
}

fn open_file(path: &Path) -> Result<redb::Database, StoreError> {
    try_open(path)?.map_err(|cause| match &cause {
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() != io::ErrorKind::InvalidData => {
            StoreError::Unusable(format!(
                "{} can't be opened: {io}. This user must be able to read and write it, and the disk needs free space",
                path.display()
            ))
        }
        cause => unusable_file(path, cause),
    })
}

/// Opens the file after an I/O error. A failure is temporary: the disk may still be full, or transactions from before the
/// error may still hold the file.
fn reopen(path: &Path) -> Result<redb::Database, StoreError> {
    try_open(path)?.map_err(|cause| {
        StoreError::Unavailable(format!("{} can't be opened again yet: {cause}", path.display()))
    })
}

fn try_open(path: &Path) -> Result<Result<redb::Database, redb::DatabaseError>, StoreError> {
    catch_unwind(|| redb::Builder::new().set_cache_size(CACHE_BYTES).open(path))
        .map_err(|_| unusable_file(path, &DAMAGED))
}

fn unusable_file(path: &Path, cause: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!(
        "{} can't be used: {cause}. Restore it from a backup, or move it away to begin with an empty store",
        path.display()
    ))
}
