//! Drives the stream of tasks from its feed, and sends slow clients of all streams the messages that wait for them.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    feed::{Change, FeedItem, translate},
    task::Timestamp,
    wire::emitted,
};

use super::{Fanout, Hub, Peer};

/// Counts go to a viewer at most five times a second.
const COUNTS_EVERY: Duration = Duration::from_millis(200);
/// How often full queues are checked while the fan-out waits for them. Any of several queues may have room next.
const SLOW_POLL: Duration = Duration::from_millis(1);
/// How often the full queues are checked for which the fan-out no longer waits.
const BEHIND_POLL: Duration = Duration::from_millis(5);

/// Runs until the feed ends. A `task:state` that a change causes has the newest `timeline_limit` entries.
pub async fn run_feed_loop<P: Peer>(
    hub: Arc<Hub<P>>,
    mut items: mpsc::Receiver<FeedItem>,
    timeline_limit: usize,
) {
    let mut counted_at: Option<Instant> = None;
    loop {
        let (dirty, behind) = hub.turn(|fanout| (fanout.counts_are_dirty(), fanout.clients.any_is_slow()));
        let due = match dirty {
            true => Some(counted_at.map_or_else(Instant::now, |last| last + COUNTS_EVERY)),
            false => None,
        };
        if due.is_some_and(|due| due <= Instant::now()) {
            let sent = hub.turn(Fanout::flush_counts);
            hub.metrics.relay.emitted(emitted::DASHBOARD_TASK_COUNT_CHANGED, sent as u64);
            counted_at = Some(Instant::now());
            wait_for_full_queues(&hub).await;
            continue;
        }
        tokio::select! {
            item = items.recv() => match item {
                Some(item) => handle_item(&hub, item, timeline_limit).await,
                None => return,
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = hub.wake.notified(), if due.is_none() || !behind => {}
            () = tokio::time::sleep(BEHIND_POLL), if behind => {
                hub.send_waiting();
            }
        }
    }
}

async fn handle_item<P: Peer>(hub: &Hub<P>, item: FeedItem, timeline_limit: usize) {
    match item {
        FeedItem::Opened(position) => {
            tracing::info!(%position, "following the store");
            hub.turn(|fanout| fanout.tasks.open(position));
            hub.task_feed.mark_open();
        }
        FeedItem::Change(change) => apply(hub, &change, timeline_limit).await,
        FeedItem::Idle(position) => {
            hub.turn(|fanout| fanout.tasks.advance(position));
            hub.task_feed.set_lag(0);
        }
        FeedItem::Gap(reason) => {
            hub.metrics.relay.history_lost.inc(reason);
            tracing::warn!(%reason, "changes may have been missed: every room is sent again");
            hub.task_feed.mark_closed();
            hub.turn(|fanout| fanout.tasks.gap(&mut fanout.clients));
        }
    }
}

async fn apply<P: Peer>(hub: &Hub<P>, change: &Change, timeline_limit: usize) {
    let metrics = &hub.metrics.relay;
    let begun = Instant::now();
    let steps = translate(change, timeline_limit);
    metrics.encode_seconds.observe(begun.elapsed().as_secs_f64());
    let mut sending = Duration::ZERO;
    for step in steps {
        for event in step.events() {
            metrics.emitted(event.name, 1);
        }
        let begun = Instant::now();
        hub.turn(|fanout| fanout.tasks.apply(step, &mut fanout.clients));
        sending += begun.elapsed();
        wait_for_full_queues(hub).await;
    }
    hub.turn(|fanout| fanout.tasks.advance(change.position.end_of_change()));
    metrics.fanout_seconds.observe(sending.as_secs_f64());
    let lag = Timestamp::now().millis().saturating_sub(change.occurred_at.millis());
    let lag_ms = lag.try_into().unwrap_or(0);
    hub.task_feed.set_lag(lag_ms);
    metrics.changes.inc();
    tracing::debug!(task = %change.task, position = %change.position, lag_ms, "relayed a change");
    if change.occurred_at >= hub.began {
        metrics.commit_to_emit_seconds.observe(Duration::from_millis(lag_ms).as_secs_f64());
    }
}

/// Waits for full queues, but only for a moment.
async fn wait_for_full_queues<P: Peer>(hub: &Hub<P>) {
    while !hub.send_waiting() {
        tokio::time::sleep(SLOW_POLL).await;
    }
}
