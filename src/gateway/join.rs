//! Joins: read a snapshot, hand it to the fan-out, and read again when that was too late.

use std::{sync::Arc, time::Duration};

use crate::{
    fanout::{DashboardOffer, Entry, Position, TaskOffer},
    protocol::{Code, Refusal},
    seldom::seldom,
    store::StoreError,
    task::TaskId,
};

use super::{Gateway, session::Session, snapshots::LoadedDashboard};

/// Visibility would have to change between read and handoff so many times.
const MAX_READS: u32 = 50;
const REREAD_PAUSE: Duration = Duration::from_millis(10);
/// With the store away a join stays pending.
const STORE_RETRY: Duration = Duration::from_millis(250);
/// How often it is looked whether a client whose queue is full has taken what it asked for: soon at first, then less often,
/// for there may be many of them.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const MAX_LOOK: Duration = Duration::from_millis(64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskJoin {
    State,
    Recovered,
    Gone,
}

#[derive(Debug)]
pub(super) enum DashboardJoin {
    State(Arc<LoadedDashboard>),
    Recovered,
}

impl Gateway {
    pub(super) async fn join_task(
        &self,
        session: &Session,
        task: &TaskId,
        mut since: Option<Position>,
    ) -> Result<TaskJoin, Refusal> {
        let mut reads = 0;
        while reads < MAX_READS {
            self.ready(session).await?;
            let (entry, shared) = match self.try_task(session, task, since, reads > 0).await {
                Ok(Some(tried)) => tried,
                Ok(None) => {
                    self.count_handoff("task", "recovered");
                    return Ok(TaskJoin::Recovered);
                }
                Err(error) => {
                    self.pause_for(&error).await?;
                    continue;
                }
            };
            self.count_handoff("task", entry.as_str());
            match entry {
                Entry::Entered => return Ok(TaskJoin::State),
                // A read that began before the question may have missed a task that the client knows of.
                Entry::Gone if !shared => return Ok(TaskJoin::Gone),
                // It may have been told that the task is gone: what it had no longer counts.
                Entry::Gone => since = None,
                Entry::Reread => tokio::time::sleep(REREAD_PAUSE).await,
            }
            reads += 1;
        }
        Err(too_lively())
    }

    /// None: it is in by its `since`. The flag says whether the read may have begun before this call.
    async fn try_task(
        &self,
        session: &Session,
        task: &TaskId,
        since: Option<Position>,
        fresh: bool,
    ) -> Result<Option<(Entry, bool)>, StoreError> {
        let enter = |offer: TaskOffer<'_>| self.hub.turn(|fanout| fanout.enter_task(session.id, offer));
        // For who may not see it, it is not even read: that would take time, and time tells.
        if since.is_some() || !self.hub.turn(|fanout| fanout.sees_room(session.id, task)) {
            let (seen, shared) = self.snapshots.access(task, fresh).await?;
            let access = seen.access.as_ref();
            let offer = TaskOffer { task: &seen.id, access, at: seen.position, state: None };
            if let Some(since) = since
                && self.hub.turn(|fanout| fanout.recover_task(session.id, offer, since))
            {
                return Ok(None);
            }
            let viewer = session.identity().viewer;
            if !offer.access.is_some_and(|access| access.allows(&viewer)) {
                return Ok(Some((enter(offer), shared)));
            }
        }
        let (loaded, shared) = self.snapshots.task(task, fresh).await?;
        let found = loaded.snapshot.task.as_ref().map(|full| &full.task);
        let offer = TaskOffer {
            task: found.map_or(task, |task| &task.id),
            access: found.map(|task| &task.access),
            at: loaded.snapshot.position,
            state: loaded.state(),
        };
        Ok(Some((enter(offer), shared)))
    }

    pub(super) async fn join_dashboard(
        &self,
        session: &Session,
        since: Option<Position>,
        counts_told: bool,
    ) -> Result<DashboardJoin, Refusal> {
        let viewer = session.identity().viewer;
        let mut reads = 0;
        while reads < MAX_READS {
            self.ready(session).await?;
            let loaded = match self.snapshots.dashboard(&viewer, reads > 0).await {
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
                counts_told,
                state: None,
            };
            if let Some(since) = since
                && self.hub.turn(|fanout| fanout.recover_dashboard(session.id, offer, since))
            {
                self.cluster.dashboard(session.id.0, true);
                self.count_handoff("dashboard", "recovered");
                return Ok(DashboardJoin::Recovered);
            }
            let offer =
                DashboardOffer { state: Some(loaded.state(self.settings.limits.dashboard_shape)), ..offer };
            let entry = self.hub.turn(|fanout| fanout.enter_dashboard(session.id, offer));
            self.count_handoff("dashboard", entry.as_str());
            if entry != Entry::Reread {
                self.cluster.dashboard(session.id.0, true);
                return Ok(DashboardJoin::State(loaded));
            }
            tokio::time::sleep(REREAD_PAUSE).await;
            reads += 1;
        }
        Err(too_lively())
    }

    fn count_handoff(&self, room: &'static str, kind: &'static str) {
        self.metrics.relay.handoffs.inc([room, kind]);
    }

    /// Until a slow client has taken what it asked for, or is cut.
    pub(super) async fn settle(&self, session: &Session) {
        let (mut waiting, mut pause) = (None, FIRST_LOOK);
        // The pump gives it what waits.
        while self.hub.turn(|fanout| fanout.is_pressed(session.id)) && !session.has_ended() {
            waiting.get_or_insert_with(|| self.metrics.clients.join_waits("client"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_LOOK);
        }
    }

    /// Until there is room for an answer and the feed is being followed.
    async fn ready(&self, session: &Session) -> Result<(), Refusal> {
        self.settle(session).await;
        let _waiting = self.metrics.clients.join_waits("store");
        while tokio::time::timeout(STORE_RETRY, self.hub.opened()).await.is_err() {
            still_there(session)?;
        }
        still_there(session)
    }

    /// A passing fault is waited out: the join stays pending until the store is back.
    async fn pause_for(&self, error: &StoreError) -> Result<(), Refusal> {
        if error.is_passing() {
            seldom!(warn, %error, "a join waits for the store");
            let _waiting = self.metrics.clients.join_waits("store");
            tokio::time::sleep(STORE_RETRY).await;
            Ok(())
        } else {
            seldom!(error, %error, "a join could not be read from the store");
            Err(Refusal::new(Code::Unavailable, "This can't be read right now"))
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
    Refusal::new(Code::Unavailable, "This changes too fast right now").retry_after(Duration::from_secs(1))
}
