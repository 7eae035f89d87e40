//! The interface of the cluster for the edges.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Revocations, UnixTime},
    task::UserId,
};

use super::{
    ClusterConfig, Membership,
    link::Commands,
    lost::LostDashboards,
    session_change::{SessionChange, SessionId, Sessions},
};

/// The capacity of the queue of changes. All clients of a node may disconnect at once.
const MAX_QUEUED_CHANGES: usize = 65_536;
/// How long a client waits for the answer of Redis.
const QUERY_TIMEOUT: Duration = Duration::from_millis(250);
/// How long an administrator waits until Redis has the disconnect.
const DISCONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// A command for this node. It comes from a request to this node or to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// Close a session: its user has too many.
    Close(SessionId),
    /// Close those sessions of this user whose tokens are no longer accepted.
    Disconnect(UserId),
}

/// The report of a live node. A node of another version may send more fields, which are ignored, or fewer, which get
/// their defaults.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    pub id: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub connections: usize,
    #[serde(default)]
    pub lag_ms: u64,
}

/// This node's view of the cluster. Without Redis, the node is alone.
#[derive(Debug)]
pub struct Cluster {
    lost: LostDashboards,
    pub(super) revocations: Arc<Revocations>,
    node_commands: mpsc::Sender<NodeCommand>,
    shared: Option<Shared>,
}

/// The state that exists only with Redis.
#[derive(Debug)]
pub(super) struct Shared {
    pub sessions: Mutex<Sessions>,
    changes: mpsc::Sender<SessionChange>,
    /// Notified when a change could not be sent. The next connection then sends everything.
    pub resync: Notify,
    pub leaving: CancellationToken,
    pub left: CancellationToken,
    /// `Some` while Redis is connected.
    commands: Mutex<Option<Commands>>,
    nodes: Mutex<Vec<NodeReport>>,
    /// Connections that ended while they were in use.
    lost_connections: AtomicU64,
}

impl Cluster {
    /// `started` is the start of this process. Until two minutes after it, every user may have lost the dashboard.
    pub fn alone(
        revocations: Arc<Revocations>,
        node_commands: mpsc::Sender<NodeCommand>,
        started: Instant,
    ) -> Arc<Self> {
        let lost = LostDashboards::new(started);
        Arc::new(Self { lost, revocations, node_commands, shared: None })
    }

    /// `started` is as in [`Cluster::alone`].
    pub fn with_redis(
        config: ClusterConfig,
        max_sessions: usize,
        revocations: Arc<Revocations>,
        node_commands: mpsc::Sender<NodeCommand>,
        started: Instant,
    ) -> (Arc<Self>, Membership) {
        let (sender, changes) = mpsc::channel(MAX_QUEUED_CHANGES);
        let shared = Shared {
            sessions: Mutex::default(),
            changes: sender,
            resync: Notify::new(),
            leaving: CancellationToken::new(),
            left: CancellationToken::new(),
            commands: Mutex::default(),
            nodes: Mutex::default(),
            lost_connections: AtomicU64::new(0),
        };
        let lost = LostDashboards::new(started);
        let cluster = Arc::new(Self { lost, revocations, node_commands, shared: Some(shared) });
        (cluster.clone(), Membership::new(cluster, config, max_sessions, changes))
    }

    pub fn opened(&self, session: SessionId, user: UserId) {
        if let Some(shared) = &self.shared {
            let mut sessions = shared.sessions.lock();
            shared.queue_change(sessions.open(session, user, Instant::now()));
        }
    }

    /// Records that a session has entered the dashboard, or left it.
    pub fn dashboard(&self, session: SessionId, has: bool) {
        if let Some(shared) = &self.shared {
            let mut sessions = shared.sessions.lock();
            sessions.dashboard(session, has).into_iter().for_each(|change| shared.queue_change(change));
        }
    }

    /// `lost` means that the session had the dashboard and did not leave it.
    pub fn ended(&self, session: SessionId, user: &UserId, lost: bool) {
        let when = lost.then(Instant::now);
        if let Some(when) = when {
            self.lost.lost(user.clone(), when);
        }
        if let Some(shared) = &self.shared {
            let mut sessions = shared.sessions.lock();
            sessions.end(session, when).into_iter().for_each(|change| shared.queue_change(change));
        }
    }

    /// Returns true if a session of this user may have lost the dashboard recently, on this node or another. If Redis
    /// does not answer, the result is true: a dashboard too many is a list that nobody looks at, but a missing one is a
    /// list that no longer changes.
    pub async fn may_have_lost_dashboard(&self, user: &UserId) -> bool {
        if self.lost.may_have_lost(user, Instant::now()) {
            return true;
        }
        let Some(shared) = &self.shared else { return false };
        let Some(commands) = shared.commands() else { return true };
        match timeout(QUERY_TIMEOUT, commands.lost_dashboard(user)).await {
            Ok(Ok(lost)) => lost,
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Closes all sessions of a user, and refuses the user's tokens that were issued until now. Returns false if Redis
    /// has not confirmed the disconnect; the next connection to Redis sends it again. A node that is not connected to
    /// Redis applies the disconnect when it reconnects.
    pub async fn disconnect(&self, user: UserId, now: UnixTime) -> bool {
        self.revocations.add(user.clone(), now);
        self.send_command(NodeCommand::Disconnect(user.clone())).await;
        let Some(shared) = &self.shared else { return true };
        // The next connection sends it.
        let Some(commands) = shared.commands() else { return false };
        let is_confirmed =
            matches!(timeout(DISCONNECT_TIMEOUT, commands.disconnect(&user, now)).await, Ok(Ok(())));
        if !is_confirmed {
            shared.resync.notify_one();
        }
        is_confirmed
    }

    /// Returns true if Redis is connected, or if there is no Redis.
    pub fn is_connected(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.commands().is_some())
    }

    /// How often the connection to Redis was lost. `None` means that there is no Redis.
    pub fn redis_lost(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.lost_connections.load(Ordering::Relaxed))
    }

    /// The live nodes. `own` is the current report of this node.
    pub fn nodes(&self, own: NodeReport) -> Vec<NodeReport> {
        let mut nodes = match &self.shared {
            Some(shared) if shared.commands().is_some() => shared.nodes.lock().clone(),
            _ => Vec::new(),
        };
        nodes.retain(|node| node.id != own.id);
        nodes.push(own);
        nodes.sort();
        nodes
    }

    /// Closes the connection to Redis, so that the other nodes see that this node ends. Dashboards that its clients
    /// lose from now on count as lost.
    pub async fn leave(&self) {
        if let Some(shared) = &self.shared {
            shared.leaving.cancel();
            let _ = timeout(LEAVE_TIMEOUT, shared.left.cancelled()).await;
        }
    }

    pub fn forget_old(&self) {
        self.lost.forget_old(Instant::now());
        self.revocations.forget_old(UnixTime::now());
    }

    /// This function waits only for this node's own work.
    pub(super) async fn send_command(&self, command: NodeCommand) {
        // The receiver is closed when the process ends.
        let _ = self.node_commands.send(command).await;
    }

    pub(super) fn lost(&self) -> &LostDashboards {
        &self.lost
    }

    pub(super) fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }
}

impl Shared {
    /// Queues a change without waiting. The caller holds the lock of [`Sessions`], so that changes of a session keep their
    /// order. A change that does not fit is sent from [`Sessions`] by a new connection, with everything else.
    fn queue_change(&self, change: SessionChange) {
        if self.commands.lock().is_some() && self.changes.try_send(change).is_err() {
            self.resync.notify_one();
        }
    }

    fn commands(&self) -> Option<Commands> {
        self.commands.lock().clone()
    }

    pub fn set_commands(&self, commands: Option<Commands>) {
        *self.commands.lock() = commands;
    }

    /// Records that the connection has ended, and clears the data that came over it.
    pub fn connection_lost(&self) {
        self.set_commands(None);
        self.set_nodes(Vec::new());
        self.lost_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn set_nodes(&self, nodes: Vec<NodeReport>) {
        *self.nodes.lock() = nodes;
    }

    pub fn all_sessions(&self) -> Vec<SessionChange> {
        self.sessions.lock().all()
    }
}
