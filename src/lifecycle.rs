//! From the first signal to the end of the process.

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

use crate::{cluster::Cluster, gateway::Gateway, serve::Idle};

/// So long a client that reads may take for what is queued for it.
const FAREWELL: Duration = Duration::from_secs(2);

/// From the signal on, each answer is its connection's last. Who sends request after request on connections that are kept has new
/// ones by then, and loses none to the end of the old ones.
const LAST_REQUESTS: Duration = Duration::from_millis(200);
/// For requests that came in the last moment, from when the listener is closed. Longer than the head of one may take then.
const LAST_ANSWERS: Duration = Duration::from_millis(1500);

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

/// What is wound down, in this order.
#[derive(Debug)]
pub struct Drain {
    /// New Socket.IO connections are answered 503, health says draining.
    pub draining: Arc<AtomicBool>,
    /// HTTP requests that are under way are finished.
    pub requests: TaskTracker,
    /// HTTP connections that wait for another request: it is answered, and is their last.
    pub idle: Idle,
    /// The other nodes know that it goes before its clients come to them.
    pub cluster: Arc<Cluster>,
    /// Served on until then, closed last, so that each client reconnects by itself.
    pub gateway: Arc<Gateway>,
    /// Then nobody new is accepted, and each HTTP connection ends when what has come on it is answered.
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
        let last_requests = Instant::now() + LAST_REQUESTS.min(self.grace / 10);
        // Half of the grace for the requests, half for the farewell.
        if timeout_at(deadline - self.grace / 2, self.requests.wait()).await.is_err() {
            tracing::warn!(running = self.requests.len(), "some requests did not end in time");
        }
        self.cluster.leave().await;
        self.gateway.close_all();
        // Those that took it are trying to reconnect already, some of them five times and no more: they must not
        // wait for those that read nothing.
        if timeout_at(deadline.min(Instant::now() + FAREWELL), self.gateway.all_gone()).await.is_err() {
            self.gateway.shut_all();
            if timeout_at(deadline, self.gateway.all_gone()).await.is_err() {
                tracing::warn!("some clients did not take their farewell in time");
            }
        }
        while !self.idle.is_empty() && Instant::now() < last_requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.closing.cancel();
        let _ = timeout_at(deadline.min(Instant::now() + LAST_ANSWERS), self.connections.wait()).await;
    }
}
