//! Keeps this node connected to Redis. Each connection starts from nothing, and the node sends everything again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::Message;
use tokio::sync::mpsc;

use crate::{auth::UnixTime, backoff::Backoff};

use super::{
    Cluster, ClusterConfig, LinkError, NodeCommand, NodeReport,
    handle::Shared,
    link::Link,
    pubsub_message::{PubSubMessage, disconnect},
    session_change::{Dashboard, SessionChange},
};

/// Between two attempts to connect to Redis.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the node sends everything again. Redis drops what is not renewed for 15 minutes.
const RENEW_INTERVAL: Duration = Duration::from_secs(5 * 60);
const MAX_BATCH_SIZE: usize = 256;
const MAX_NODES: usize = 1000;
const MAX_REPORT_BYTES: usize = 1024;

/// The task that maintains the connection to Redis.
#[derive(Debug)]
pub struct Membership {
    cluster: Arc<Cluster>,
    config: ClusterConfig,
    max_sessions: usize,
    changes: mpsc::Receiver<SessionChange>,
}

impl Membership {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        config: ClusterConfig,
        max_sessions: usize,
        changes: mpsc::Receiver<SessionChange>,
    ) -> Self {
        Self { cluster, config, max_sessions, changes }
    }

    /// Runs for ever, also while Redis is unreachable. `own` returns the report of this node. Only a Redis that is too
    /// old at the first attempt ends this function, because it would stay too old.
    pub async fn run(mut self, own: impl Fn() -> NodeReport + Send) -> Result<(), LinkError> {
        let cluster = self.cluster.clone();
        let Some(shared) = cluster.shared() else { return std::future::pending().await };
        tokio::select! {
            ended = self.connect_repeatedly(shared, &own) => return ended,
            () = shared.leaving.cancelled() => {}
        }
        shared.set_commands(None);
        shared.left.cancel();
        std::future::pending().await
    }

    async fn connect_repeatedly(
        &mut self,
        shared: &Shared,
        own: &impl Fn() -> NodeReport,
    ) -> Result<(), LinkError> {
        let (mut failures, mut first, mut before) = (0, true, None);
        loop {
            let opened = Link::open(&self.config, before.as_deref()).await;
            let error = match opened {
                Ok(mut link) => {
                    tracing::info!("connected to Redis: the nodes exchange data");
                    before = Some(link.commands.lease().to_owned());
                    let began = Instant::now();
                    let error = self.run_link(&mut link, shared, own).await;
                    shared.connection_lost();
                    failures = if began.elapsed() > HEARTBEAT_INTERVAL * 2 { 0 } else { failures + 1 };
                    tracing::warn!(%error, "lost Redis: clients still receive events, but the nodes do not exchange data");
                    error
                }
                Err(error @ LinkError::TooOld(_)) if first => return Err(error),
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "no Redis: clients still receive events, but the nodes do not exchange data");
                    }
                    failures += 1;
                    error
                }
            };
            tracing::debug!(%error, failures, "trying Redis again");
            first = false;
            tokio::time::sleep(BACKOFF.pause_with_jitter(failures, 0.5..=1.0)).await;
        }
    }

    async fn run_link(
        &mut self,
        link: &mut Link,
        shared: &Shared,
        own: &impl Fn() -> NodeReport,
    ) -> LinkError {
        // New changes are queued from here on. Earlier ones are included when `serve` sends everything.
        while self.changes.try_recv().is_ok() {}
        shared.set_commands(Some(link.commands.clone()));
        match self.serve(link, shared, own).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn serve(
        &mut self,
        link: &mut Link,
        shared: &Shared,
        own: &impl Fn() -> NodeReport,
    ) -> Result<std::convert::Infallible, LinkError> {
        self.heartbeat(link, shared, own).await?;
        self.exchange_disconnects(link).await?;
        let mut last_sent = self.send_everything(link, shared, own).await?;
        let mut heartbeats = tokio::time::interval(HEARTBEAT_INTERVAL);
        heartbeats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = Vec::with_capacity(MAX_BATCH_SIZE);
        loop {
            tokio::select! {
                _ = heartbeats.tick() => {
                    self.heartbeat(link, shared, own).await?;
                    if last_sent.elapsed() > RENEW_INTERVAL {
                        last_sent = self.send_everything(link, shared, own).await?;
                    }
                }
                message = link.next_message() => self.handle_message(link, &message?).await,
                _ = self.changes.recv_many(&mut changes, MAX_BATCH_SIZE) => {
                    link.commands.send_changes(&changes, self.max_sessions).await?;
                    changes.clear();
                }
                () = shared.resync.notified() => return Err(LinkError::QueueFull),
            }
        }
    }

    async fn heartbeat(
        &self,
        link: &Link,
        shared: &Shared,
        own: &impl Fn() -> NodeReport,
    ) -> Result<(), LinkError> {
        // A report is text and numbers, so this can't fail.
        let report = serde_json::to_string(&own()).unwrap_or_default();
        let reports = link.commands.heartbeat(&report).await?;
        let usable = reports.iter().filter(|report| report.len() <= MAX_REPORT_BYTES).take(MAX_NODES);
        let nodes = usable.filter_map(|report| serde_json::from_str(report).ok());
        shared.set_nodes(nodes.collect());
        Ok(())
    }

    /// This node and Redis may have received disconnects while they were not connected, and Redis may have lost all its
    /// data.
    async fn exchange_disconnects(&self, link: &Link) -> Result<(), LinkError> {
        let known = link.commands.disconnects().await?;
        for (user, at) in &known {
            self.apply_disconnect(user, *at).await;
        }
        let known: std::collections::HashMap<_, _> = known.into_iter().collect();
        for (user, at) in self.cluster.revocations.all() {
            if known.get(user.as_str()).is_none_or(|known| *known < at.as_millis()) {
                link.commands.disconnect(&user, at).await?;
            }
        }
        Ok(())
    }

    async fn send_everything(
        &self,
        link: &Link,
        shared: &Shared,
        own: &impl Fn() -> NodeReport,
    ) -> Result<Instant, LinkError> {
        let (now, mut last_heartbeat) = (Instant::now(), Instant::now());
        let mut changes = shared.all_sessions();
        // No session has the number 0.
        changes.extend(
            self.cluster.lost().recent(now).into_iter().map(|(user, when)| SessionChange::Dashboard {
                user,
                session: 0,
                state: Dashboard::Lost(when),
            }),
        );
        for batch in changes.chunks(MAX_BATCH_SIZE) {
            link.commands.send_changes(batch, self.max_sessions).await?;
            if last_heartbeat.elapsed() > HEARTBEAT_INTERVAL {
                self.heartbeat(link, shared, own).await?;
                last_heartbeat = Instant::now();
            }
        }
        Ok(now)
    }

    async fn handle_message(&self, link: &Link, message: &Message) {
        let text = message.value.as_str().unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(PubSubMessage::Close(session)) if link.commands.is_own_channel(&message.channel) => {
                self.cluster.send_command(NodeCommand::Close(session)).await;
            }
            Ok(PubSubMessage::Disconnect { user, at }) => self.apply_disconnect(&user, at).await,
            Ok(PubSubMessage::Close(_)) | Err(_) => {
                tracing::debug!(channel = %message.channel, "received an unknown message");
            }
        }
    }

    async fn apply_disconnect(&self, user: &str, at: u64) {
        let Some((user, at)) = disconnect(user, at, UnixTime::now()) else {
            tracing::warn!(
                "ignored a disconnect from Redis: its time is in the future or its user is invalid; check the clocks of all nodes"
            );
            return;
        };
        if self.cluster.revocations.add(user.clone(), at) {
            self.cluster.send_command(NodeCommand::Disconnect(user)).await;
        }
    }
}
