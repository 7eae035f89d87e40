//! Handles the client events of a session.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;

use crate::{
    auth::{AuthError, without_scheme},
    fanout::Position,
    metrics::{CutReason, WaitCause},
    rate_limit::RateLimited,
    rate_limited_log::rate_limited_log,
    task::TaskId,
    wire::{ClientEvent, Code, Message, Refusal, RequestId, Resync},
};

use super::{
    CloseReason, Session, Sessions,
    join::{DashboardJoinOutcome, TaskJoinOutcome},
    log_refused,
    session::Request,
};

/// The first resyncs of a session are not rate limited. The existing client sends one on each connect, and one more for the task
/// that it shows.
const RESYNCS_WITHOUT_LIMIT: u32 = 2;
/// A new token may wait this long for a fetch of keys. The session's other requests wait behind it.
const KEY_WAIT_TIMEOUT: Duration = Duration::from_secs(6);

/// The ack of a successful resync.
#[derive(Serialize)]
struct ResyncReply {
    ok: bool,
    gone: Vec<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
}

impl Sessions {
    /// Works on a session's requests, one after the other, until there are no more.
    pub(super) async fn process_requests(self: Arc<Self>, session: Arc<Session>) {
        while let Some(request) = session.pop() {
            match request {
                Request::Refresh => self.refresh(&session).await,
                Request::Client { event, name, id, arrived } => {
                    let result = self.answer(&session, event, id.clone(), arrived).await;
                    let code = result.as_ref().err().map(|refusal| refusal.code.as_str());
                    tracing::debug!(event = <&str>::from(name), refused = code, "answered");
                    if let Err(refusal) = result {
                        self.refuse(&session, id, &refusal.of(name));
                    }
                    self.wait_until_read(&session).await;
                }
            }
        }
    }

    async fn answer(
        &self,
        session: &Arc<Session>,
        event: ClientEvent,
        id: Option<RequestId>,
        arrived: Instant,
    ) -> Result<(), Refusal> {
        match event {
            ClientEvent::TaskJoin { task } => {
                let task = self.check_task_room(&task)?;
                self.wait_for_rate_limit(session, arrived).await?;
                self.check_room_limit(session, std::slice::from_ref(&task), false)?;
                // The fan-out has queued `task:state` when this returns, so the client receives it before the acknowledgement.
                match self.join_task(session, &task, None).await? {
                    TaskJoinOutcome::Gone => return Err(Refusal::new(Code::NotFound, "No such task")),
                    TaskJoinOutcome::State | TaskJoinOutcome::Recovered => self.acknowledge(session, id),
                }
            }
            ClientEvent::TaskLeave { task } => {
                let task = self.check_task_room(&task)?;
                self.hub.turn(|fanout| fanout.leave_task(session.id, &task));
                self.acknowledge(session, id);
            }
            ClientEvent::DashboardJoin => {
                self.check_dashboard_room()?;
                self.wait_for_rate_limit(session, arrived).await?;
                self.check_room_limit(session, &[], true)?;
                if let DashboardJoinOutcome::State(loaded) =
                    self.join_dashboard(session, None, id.is_some()).await?
                    && let Some(id) = id
                {
                    self.reply(session, &Message::reply(id, &loaded.acknowledgement()));
                }
            }
            ClientEvent::DashboardLeave => {
                self.check_dashboard_room()?;
                self.hub.turn(|fanout| fanout.leave_dashboard(session.id));
                self.cluster.dashboard(session.id.0, false);
                self.acknowledge(session, id);
            }
            ClientEvent::Resync(resync) => {
                if session.count_resync() > RESYNCS_WITHOUT_LIMIT {
                    self.wait_for_rate_limit(session, arrived).await?;
                }
                let reply = self.resync(session, resync).await?;
                if let Some(id) = id {
                    self.reply(session, &Message::reply(id, &reply));
                }
            }
            ClientEvent::AuthRefresh { token } => {
                self.refresh_limit.wait_for_turn(&session.user(), arrived).await.map_err(too_many)?;
                let identity =
                    self.tokens.admit(without_scheme(&token), KEY_WAIT_TIMEOUT).await.map_err(|error| {
                        log_refused(&error, "refused a token refresh");
                        match error {
                            AuthError::Expired => Refusal::new(Code::TokenExpired, "The token has expired"),
                            AuthError::Unauthorized(_) | AuthError::TooLong { .. } => {
                                Refusal::new(Code::Unauthorized, "The token is not valid")
                            }
                            AuthError::NoKey { retry_after } => {
                                Refusal::new(Code::Unavailable, "The token can't be checked at the moment")
                                    .retry_after(retry_after.max(Duration::from_secs(1)))
                            }
                        }
                    })?;
                if identity.viewer.user != session.user() {
                    return Err(Refusal::new(Code::Conflict, "The token is another user's"));
                }
                self.renew(session, identity);
                self.acknowledge(session, id);
            }
        }
        Ok(())
    }

    async fn resync(&self, session: &Session, resync: Resync) -> Result<ResyncReply, Refusal> {
        match resync {
            Resync::AllRooms => {
                let (tasks, mut dashboard) = self.hub.turn(|fanout| fanout.joined_rooms(session.id));
                if tasks.is_empty() && !dashboard && self.settings.features.dashboard {
                    let user = session.user();
                    dashboard = self.cluster.may_have_lost_dashboard(&user).await;
                }
                self.send_rooms(session, &tasks, dashboard).await
            }
            Resync::Rooms { tasks, dashboard } => {
                let tasks =
                    tasks.iter().map(|task| self.check_task_room(task)).collect::<Result<Vec<_>, _>>()?;
                if dashboard {
                    self.check_dashboard_room()?;
                }
                self.check_room_limit(session, &tasks, dashboard)?;
                self.send_rooms(session, &tasks, dashboard).await
            }
            Resync::TaskSince { task, since } => {
                let task = self.check_task_room(&task)?;
                let since = position(&since)?;
                self.check_room_limit(session, std::slice::from_ref(&task), false)?;
                let joined = self.join_task(session, &task, Some(since)).await?;
                let gone = if joined == TaskJoinOutcome::Gone { vec![task] } else { Vec::new() };
                Ok(ResyncReply { ok: true, gone, recovered: Some(joined == TaskJoinOutcome::Recovered) })
            }
            Resync::DashboardSince { since } => {
                self.check_dashboard_room()?;
                let since = position(&since)?;
                self.check_room_limit(session, &[], true)?;
                let joined = self.join_dashboard(session, Some(since), false).await?;
                let recovered = matches!(joined, DashboardJoinOutcome::Recovered);
                Ok(ResyncReply { ok: true, gone: Vec::new(), recovered: Some(recovered) })
            }
        }
    }

    async fn send_rooms(
        &self,
        session: &Session,
        tasks: &[TaskId],
        dashboard: bool,
    ) -> Result<ResyncReply, Refusal> {
        let mut gone = Vec::new();
        for task in tasks {
            if self.join_task(session, task, None).await? == TaskJoinOutcome::Gone {
                gone.push(task.clone());
            }
        }
        if dashboard {
            self.join_dashboard(session, None, false).await?;
        }
        Ok(ResyncReply { ok: true, gone, recovered: None })
    }

    /// Enters all joined rooms again, for example after a gap in the feed or when the client's organisation has changed.
    async fn refresh(&self, session: &Session) {
        let (tasks, dashboard) = self.hub.turn(|fanout| fanout.joined_rooms(session.id));
        if let Err(refusal) = self.send_rooms(session, &tasks, dashboard).await {
            // Without this the client would miss events and not notice.
            self.metrics.clients.cut.inc(CutReason::NotRefreshed);
            rate_limited_log!(
                warn,
                code = refusal.code.as_str(),
                "closed a connection: resending its rooms failed"
            );
            session.connection.clone().close_in_order(CloseReason::Overloaded);
        }
    }

    fn acknowledge(&self, session: &Session, id: Option<RequestId>) {
        if let Some(id) = id {
            self.reply(session, &Message::reply(id, &json!({"ok": true})));
        }
    }

    fn check_task_room(&self, task: &str) -> Result<TaskId, Refusal> {
        if !self.settings.features.task_detail {
            return Err(Refusal::new(Code::FeatureDisabled, "Tasks are switched off"));
        }
        TaskId::parse(task).ok_or(Refusal::invalid("taskId must be a non-empty string"))
    }

    fn check_dashboard_room(&self) -> Result<(), Refusal> {
        if self.settings.features.dashboard {
            Ok(())
        } else {
            Err(Refusal::new(Code::FeatureDisabled, "The dashboard is switched off"))
        }
    }

    async fn wait_for_rate_limit(&self, session: &Session, arrived: Instant) -> Result<(), Refusal> {
        let _waiting = self.metrics.clients.join_waits(WaitCause::Rate);
        self.join_limit.wait_for_turn(&session.user(), arrived).await.map_err(too_many)
    }

    /// Checks that these rooms fit beside those that the client has already joined.
    fn check_room_limit(&self, session: &Session, tasks: &[TaskId], dashboard: bool) -> Result<(), Refusal> {
        let rooms = self.hub.turn(|fanout| {
            let (_, in_dashboard) = fanout.joined_rooms(session.id);
            let new = tasks.iter().filter(|task| !fanout.has_joined(session.id, task)).count();
            fanout.rooms_of(session.id) + new + usize::from(dashboard && !in_dashboard)
        });
        if rooms > self.settings.limits.max_rooms_per_socket {
            return Err(Refusal::new(Code::TooManyRooms, "Too many rooms: leave some first"));
        }
        Ok(())
    }
}

fn too_many(limited: RateLimited) -> Refusal {
    Refusal::new(Code::RateLimited, "Too many requests").retry_after(limited.retry_after)
}

fn position(since: &str) -> Result<Position, Refusal> {
    since.parse().map_err(|_| Refusal::invalid("since must be an eventId"))
}
