//! Starts a real mongod: a single-node replica set on a free port, which the whole test binary shares.

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};
use taskcast::{
    feed::FeedItem,
    store::{Images, MongoConfig, MongoStore, Store},
    task::DefaultOrg,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The longest time that a test waits for one event.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Kills the server and removes its files when standard input closes. The shared server is in a static, which is never
/// dropped, and a test binary may be killed.
const WATCHDOG: &str = r#"dir=$1; shift; "$@" >"$dir/log" 2>&1 & pid=$!
read -r _; kill -9 $pid; wait $pid 2>/dev/null; rm -rf "$dir""#;

static SHARED: LazyLock<Mongod> = LazyLock::new(Mongod::replica_set);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A mongod process, which is killed on drop.
#[derive(Debug)]
pub struct Mongod {
    port: u16,
    watchdog: Child,
}

impl Mongod {
    pub fn replica_set() -> Self {
        Self::replica_set_of(&binary())
    }

    pub fn replica_set_of(binary: &Path) -> Self {
        let server = Self::start(binary, &["--replSet", "rs0"]);
        server.initiate();
        server
    }

    /// A member without its replica set configuration, as every member is for a moment after its start.
    pub fn not_initiated() -> Self {
        Self::start(&binary(), &["--replSet", "rs0"])
    }

    pub fn initiate(&self) {
        self.command(doc! {"replSetInitiate": {
            "_id": "rs0",
            "members": [{"_id": 0, "host": format!("127.0.0.1:{}", self.port)}],
        }});
        self.wait_until(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false));
    }

    pub fn standalone() -> Self {
        Self::start(&binary(), &[])
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/", self.port)
    }

    fn start(binary: &Path, extra: &[&str]) -> Self {
        let port = free_port();
        let dir = tempfile::Builder::new().prefix("taskcast-mongod-").tempdir().expect("a folder").keep();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&dir)
            .arg(binary)
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string(), "--dbpath"])
            .arg(&dir)
            .args(["--wiredTigerCacheSizeGB", "1", "--journalCommitInterval", "5", "--oplogSize", "128"])
            .args(["--setParameter", "enableTestCommands=1"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(extra)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let server = Self { port, watchdog };
        server.wait_until(|_| true);
        server
    }

    /// Runs the command on this server, whatever its state in the replica set.
    pub fn command(&self, command: Document) -> Document {
        self.try_command(command).expect("the command succeeds")
    }

    fn try_command(&self, command: Document) -> mongodb::error::Result<Document> {
        let uri = format!("{}?directConnection=true&serverSelectionTimeoutMS=500", self.uri());
        let in_own_runtime = move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                Client::with_uri_str(uri).await?.database("admin").run_command(command).await
            })
        };
        thread::spawn(in_own_runtime).join().expect("no panic")
    }

    fn wait_until(&self, reached: impl Fn(&Document) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.try_command(doc! {"hello": 1}) {
                Ok(hello) if reached(&hello) => return,
                last => assert!(Instant::now() < deadline, "mongod does not get ready: {last:?}"),
            }
        }
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// A separate database on a server, and the settings of a store on the database.
#[derive(Debug)]
pub struct TestDatabase {
    pub config: MongoConfig,
    pub client: Client,
}

impl TestDatabase {
    pub async fn new() -> Self {
        Self::on(&SHARED).await
    }

    pub async fn on(server: &Mongod) -> Self {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let config = MongoConfig {
            uri: server.uri(),
            database: Some(format!("t{number}_{}", std::process::id())),
            collection: "tasks".to_owned(),
            images: Images::Auto,
            default_org: DefaultOrg::default(),
            webhooks: true,
            task_writes: true,
        };
        Self { client: Client::with_uri_str(server.uri()).await.expect("a client"), config }
    }

    pub fn store(&self) -> MongoStore {
        MongoStore::new(self.config.clone()).expect("a store")
    }

    pub async fn prepared_store(&self) -> MongoStore {
        let store = self.store();
        store.prepare().await.expect("prepared");
        store
    }

    /// The collection that the existing backend writes to.
    pub fn tasks(&self) -> Collection<Document> {
        let name = self.config.database.as_deref().expect("named");
        self.client.database(name).collection(&self.config.collection)
    }

    /// MongoDB's profiler entries for the commands on the tasks during `work`.
    pub async fn profile(&self, work: impl Future<Output = ()>) -> Vec<Document> {
        let database = self.client.database(self.config.database.as_deref().expect("named"));
        database.run_command(doc! {"profile": 2}).await.expect("profiled");
        work.await;
        database.run_command(doc! {"profile": 0}).await.expect("no longer profiled");
        let profile_entries = database.collection::<Document>("system.profile");
        let found = profile_entries.find(doc! {"ns": {"$regex": "tasks$"}}).await.expect("found");
        let found: Vec<Document> = found.try_collect().await.expect("read");
        profile_entries.drop().await.expect("dropped");
        assert!(!found.is_empty(), "nothing was noted");
        found
    }

    /// Prepares the store and follows it. The feed misses no change from here on.
    pub async fn open_feed(&self) -> TestFeed {
        TestFeed::open(Arc::new(self.prepared_store().await)).await
    }
}

/// The size of the answer in an entry of [`TestDatabase::noted`].
pub fn response_bytes(profile_entry: &Document) -> i64 {
    let length = profile_entry.get_i32("responseLength").map(i64::from);
    length.or_else(|_| profile_entry.get_i64("responseLength")).unwrap_or_default()
}

/// A feed that is being read.
#[derive(Debug)]
pub struct TestFeed {
    pub items: mpsc::Receiver<FeedItem>,
    pub task: JoinHandle<Result<(), taskcast::store::StoreError>>,
    _stop: DropGuard,
}

impl TestFeed {
    pub async fn open(store: Arc<MongoStore>) -> Self {
        let (sender, items) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { store.follow(sender, token).await });
        let mut followed = Self { items, task, _stop: stop.drop_guard() };
        let first = followed.next().await;
        assert!(matches!(first, FeedItem::Opened(_)), "{first:?}");
        followed
    }

    /// Reads the feed and ignores its items.
    pub fn discard_items(mut self) -> DropGuard {
        tokio::spawn(async move { while self.items.recv().await.is_some() {} });
        self._stop
    }

    pub async fn next(&mut self) -> FeedItem {
        tokio::time::timeout(DEADLINE, self.items.recv()).await.expect("in time").expect("the feed goes on")
    }
}

fn binary() -> PathBuf {
    let path = env::var_os("TASKCAST_TEST_MONGOD")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-deps/mongod"), PathBuf::from);
    assert!(
        path.is_file(),
        "no mongod at {}: run `make test-deps`, or name one (6.0 or newer) in TASKCAST_TEST_MONGOD",
        path.display()
    );
    path
}

/// All servers that are there for tests: the usual one, and those in `TASKCAST_TEST_MONGODS`, separated by colons.
pub fn binaries() -> Vec<PathBuf> {
    let others = env::var_os("TASKCAST_TEST_MONGODS").unwrap_or_default();
    let others: Vec<PathBuf> =
        env::split_paths(&others).filter(|path| !path.as_os_str().is_empty()).collect();
    assert!(others.iter().all(|path| path.is_file()), "TASKCAST_TEST_MONGODS names no server: {others:?}");
    [binary()].into_iter().chain(others).collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
