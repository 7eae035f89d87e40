//! Joins: this module reads a snapshot, hands it to the fan-out, and reads again if the snapshot was too old.

use std::{sync::Arc, time::Duration};

use crate::{
    fanout::{DashboardOffer, EnterOutcome, Position, TaskOffer},
    metrics::{HandoffKind, RoomKind, WaitCause},
    rate_limited_log::rate_limited_log,
    store::StoreError,
    task::TaskId,
    wire::{Code, Refusal},
};

use super::{Session, Sessions, snapshots::LoadedDashboard};

/// A join is refused after this many reads. Each time, visibility would have to change between the read and the handoff, or the
/// snapshot would have to be too old.
const MAX_READS: u32 = 50;
const REREAD_PAUSE: Duration = Duration::from_millis(10);
/// While the store is unavailable, a join stays pending and retries after this time.
const STORE_RETRY: Duration = Duration::from_millis(250);
/// The first and the longest pause between two checks whether a client with a full queue has read what it asked for. The pauses
/// grow, because there may be many such clients.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskJoinOutcome {
    State,
    Recovered,
    Gone,
}

#[derive(Debug)]
pub(super) enum DashboardJoinOutcome {
    State(Arc<LoadedDashboard>),
    Recovered,
}

impl Sessions {
    pub(super) async fn join_task(
        &self,
        session: &Session,
        task: &TaskId,
        since: Option<Position>,
    ) -> Result<TaskJoinOutcome, Refusal> {
        let mut reads = 0;
        while reads < MAX_READS {
            self.ready(session).await?;
            let entry = match self.try_task(session, task, since).await {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    self.count_handoff(RoomKind::Task, HandoffKind::Recovered);
                    return Ok(TaskJoinOutcome::Recovered);
                }
                Err(error) => {
                    self.pause_for(&error).await?;
                    continue;
                }
            };
            self.count_handoff(RoomKind::Task, entry.into());
            match entry {
                EnterOutcome::Entered => return Ok(TaskJoinOutcome::State),
                EnterOutcome::Gone => return Ok(TaskJoinOutcome::Gone),
                EnterOutcome::Reread => tokio::time::sleep(REREAD_PAUSE).await,
            }
            reads += 1;
        }
        Err(too_lively())
    }

    /// `None` means that the client has entered the room with its `since`.
    async fn try_task(
        &self,
        session: &Session,
        task: &TaskId,
        since: Option<Position>,
    ) -> Result<Option<EnterOutcome>, StoreError> {
        let enter = |offer: TaskOffer<'_>| self.hub.turn(|fanout| fanout.enter_task(session.id, offer));
        // The task is not read for a viewer who may not see it: the time of that read would reveal that the task exists.
        if since.is_some() || !self.hub.turn(|fanout| fanout.sees_room(session.id, task)) {
            let seen = self.snapshots.access(task).await?;
            let access = seen.access.as_ref();
            let offer = TaskOffer { task: &seen.id, access, at: seen.position, state: None };
            if let Some(since) = since
                && self.hub.turn(|fanout| fanout.recover_task(session.id, offer, since))
            {
                return Ok(None);
            }
            let viewer = session.identity().viewer;
            if !offer.access.is_some_and(|access| access.allows(&viewer)) {
                return Ok(Some(enter(offer)));
            }
        }
        let loaded = self.snapshots.task(task).await?;
        let found = loaded.snapshot.task.as_ref().map(|full| &full.task);
        let offer = TaskOffer {
            task: found.map_or(task, |task| &task.id),
            access: found.map(|task| &task.access),
            at: loaded.snapshot.position,
            state: loaded.state(),
        };
        Ok(Some(enter(offer)))
    }

    pub(super) async fn join_dashboard(
        &self,
        session: &Session,
        since: Option<Position>,
        counts_in_reply: bool,
    ) -> Result<DashboardJoinOutcome, Refusal> {
        let viewer = session.identity().viewer;
        let mut reads = 0;
        while reads < MAX_READS {
            self.ready(session).await?;
            let loaded = match self.snapshots.dashboard(&viewer).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    self.pause_for(&error).await?;
                    continue;
                }
            };
            let offer = DashboardOffer {
                at: loaded.snapshot.position,
                org_counts: loaded.snapshot.org_counts,
                own_counts: loaded.snapshot.own_counts,
                counts_in_reply,
                state: None,
            };
            if let Some(since) = since
                && self.hub.turn(|fanout| fanout.recover_dashboard(session.id, offer, since))
            {
                self.cluster.dashboard(session.id.0, true);
                self.count_handoff(RoomKind::Dashboard, HandoffKind::Recovered);
                return Ok(DashboardJoinOutcome::Recovered);
            }
            let offer =
                DashboardOffer { state: Some(loaded.state(self.settings.limits.dashboard_shape)), ..offer };
            let entry = self.hub.turn(|fanout| fanout.enter_dashboard(session.id, offer));
            self.count_handoff(RoomKind::Dashboard, entry.into());
            if entry != EnterOutcome::Reread {
                self.cluster.dashboard(session.id.0, true);
                return Ok(DashboardJoinOutcome::State(loaded));
            }
            tokio::time::sleep(REREAD_PAUSE).await;
            reads += 1;
        }
        Err(too_lively())
    }

    fn count_handoff(&self, room: RoomKind, kind: HandoffKind) {
        self.metrics.relay.handoffs.inc((room, kind));
    }

    /// Waits until a slow client has read what it asked for, or its session has ended.
    pub(super) async fn wait_until_read(&self, session: &Session) {
        let (mut waiting, mut pause) = (None, FIRST_PAUSE);
        // The feed loop sends what waits.
        while self.hub.turn(|fanout| fanout.clients.is_slow(session.id)) && !session.has_ended() {
            waiting.get_or_insert_with(|| self.metrics.clients.join_waits(WaitCause::Client));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Waits until the client has room for an answer and this node follows the feed.
    async fn ready(&self, session: &Session) -> Result<(), Refusal> {
        self.wait_until_read(session).await;
        let _waiting = self.metrics.clients.join_waits(WaitCause::Store);
        while tokio::time::timeout(STORE_RETRY, self.hub.task_feed.opened()).await.is_err() {
            still_there(session)?;
        }
        still_there(session)
    }

    /// Waits after a temporary error, so that the join stays pending until the store is available. After any other error the join is
    /// refused.
    async fn pause_for(&self, error: &StoreError) -> Result<(), Refusal> {
        if error.is_temporary() {
            rate_limited_log!(warn, %error, "a join waits for the store");
            let _waiting = self.metrics.clients.join_waits(WaitCause::Store);
            tokio::time::sleep(STORE_RETRY).await;
            Ok(())
        } else {
            rate_limited_log!(error, %error, "refused a join: the store could not read its data");
            Err(Refusal::new(Code::Unavailable, "The data can't be read at the moment"))
        }
    }
}

fn still_there(session: &Session) -> Result<(), Refusal> {
    if session.has_ended() {
        Err(Refusal::new(Code::Unavailable, "The connection has ended"))
    } else {
        Ok(())
    }
}

fn too_lively() -> Refusal {
    Refusal::new(Code::Unavailable, "The data changes too fast right now").retry_after(Duration::from_secs(1))
}
