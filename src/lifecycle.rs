//! Shuts the process down, from the first signal to its end.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{cluster::Cluster, serve::IdleConnections, transport::Server};

/// How long a client may take to read the packets that are queued for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Idle HTTP connections are not closed before this time after the signal has passed, or a tenth of the grace if that is
/// shorter. Each answer is the last one of its connection, so a client that sends request after request opens new
/// connections in this time. It loses no request when the old ones are closed.
const IDLE_GRACE: Duration = Duration::from_millis(200);
/// How long requests of the last moment may take, counted from when the listener is closed. This is longer than a
/// request head may take then.
const FINAL_ANSWERS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Both signals that ask a process to end.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The parts that are shut down, in this order.
#[derive(Debug)]
pub struct Drain {
    /// New connections of clients are answered 503, and health says `draining`.
    pub draining: Arc<AtomicBool>,
    /// The drain waits for HTTP requests that are being answered.
    pub requests: TaskTracker,
    /// HTTP connections that wait for another request. That request is answered, and it is their last.
    pub idle: IdleConnections,
    /// The other nodes are told that this node ends before its clients reconnect to them.
    pub cluster: Arc<Cluster>,
    /// The clients are served until the requests have ended. Then their connections are closed, so that each client
    /// reconnects by itself.
    pub servers: Vec<Arc<dyn Server>>,
    /// After that no new connection is accepted, and an HTTP connection ends when all its received requests are
    /// answered.
    pub closing: CancellationToken,
    pub connections: TaskTracker,
    pub grace: Duration,
}

impl Drain {
    /// Returns when everything has ended, or after the grace.
    pub async fn run(self) {
        tracing::info!(grace = ?self.grace, "draining; a second signal ends the process at once");
        let deadline = Instant::now() + self.grace;
        self.draining.store(true, Ordering::Relaxed);
        self.requests.close();
        self.connections.close();
        let idle_grace_end = Instant::now() + IDLE_GRACE.min(self.grace / 10);
        // Half of the grace is for the requests, the other half for closing the clients' connections.
        if timeout_at(deadline - self.grace / 2, self.requests.wait()).await.is_err() {
            tracing::warn!(running = self.requests.len(), "some requests did not end in time");
        }
        self.cluster.leave().await;
        self.servers.iter().for_each(|server| server.close_all());
        // Clients that read the close are already trying to reconnect, some of them only five times. They must not wait
        // for clients that read nothing.
        if timeout_at(deadline.min(Instant::now() + CLOSE_TIMEOUT), wait_until_empty(&self.servers))
            .await
            .is_err()
        {
            self.servers.iter().for_each(|server| server.shut_all());
            if timeout_at(deadline, wait_until_empty(&self.servers)).await.is_err() {
                tracing::warn!("some client connections did not end in time");
            }
        }
        while !self.idle.is_empty() && Instant::now() < idle_grace_end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.closing.cancel();
        let _ =
            timeout_at(deadline.min(Instant::now() + FINAL_ANSWERS_TIMEOUT), self.connections.wait()).await;
    }
}

/// Waits until no server has a connection left.
async fn wait_until_empty(servers: &[Arc<dyn Server>]) {
    while !servers.iter().all(|server| server.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
