//! The sessions of this node, and the changes about them that it sends to Redis.

use std::{collections::HashMap, time::Instant};

use crate::{shrinking_map::ShrinkingMap, task::UserId};

/// The number that the gateway gave a session.
pub type SessionId = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionChange {
    Opened { user: UserId, sessions: Vec<(SessionId, Instant)> },
    Ended { user: UserId, session: SessionId },
    Dashboard { user: UserId, session: SessionId, state: Dashboard },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dashboard {
    Entered,
    Left,
    Lost(Instant),
}

#[derive(Debug)]
struct Session {
    user: UserId,
    since: Instant,
    has_dashboard: bool,
}

/// The sessions of this node, as Redis should know them. Whatever Redis has forgotten or never received is sent again
/// from here.
#[derive(Debug, Default)]
pub(super) struct Sessions(ShrinkingMap<SessionId, Session>);

impl Sessions {
    pub fn open(&mut self, session: SessionId, user: UserId, since: Instant) -> SessionChange {
        self.0.insert(session, Session { user: user.clone(), since, has_dashboard: false });
        SessionChange::Opened { user, sessions: vec![(session, since)] }
    }

    /// `None` means that the session has ended, or that nothing changes.
    pub fn dashboard(&mut self, session: SessionId, has: bool) -> Option<SessionChange> {
        let known = self.0.get_mut(&session)?;
        if std::mem::replace(&mut known.has_dashboard, has) == has {
            return None;
        }
        let state = if has { Dashboard::Entered } else { Dashboard::Left };
        Some(SessionChange::Dashboard { user: known.user.clone(), session, state })
    }

    /// `lost` is the time at which the session lost the dashboard, if it did not leave it.
    pub fn end(&mut self, session: SessionId, lost: Option<Instant>) -> Vec<SessionChange> {
        let Some(Session { user, has_dashboard, .. }) = self.0.remove(&session) else { return Vec::new() };
        let mut changes = vec![SessionChange::Ended { user: user.clone(), session }];
        if has_dashboard || lost.is_some() {
            let state = lost.map_or(Dashboard::Left, Dashboard::Lost);
            changes.push(SessionChange::Dashboard { user, session, state });
        }
        changes
    }

    /// All changes, for a Redis that may know none of them.
    pub fn all(&self) -> Vec<SessionChange> {
        let mut by_user: HashMap<&UserId, Vec<(SessionId, Instant)>> = HashMap::new();
        for (id, session) in &self.0 {
            by_user.entry(&session.user).or_default().push((*id, session.since));
        }
        let opened = by_user
            .into_iter()
            .map(|(user, sessions)| SessionChange::Opened { user: user.clone(), sessions })
            .collect::<Vec<_>>();
        let with_dashboard = self.0.iter().filter(|(_, session)| session.has_dashboard);
        let entered = with_dashboard.map(|(id, session)| SessionChange::Dashboard {
            user: session.user.clone(),
            session: *id,
            state: Dashboard::Entered,
        });
        opened.into_iter().chain(entered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_session_is_reported_once() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let ann = UserId::parse("ann").unwrap();
        sessions.open(1, ann.clone(), now);
        sessions.open(2, ann.clone(), now);
        assert!(sessions.dashboard(1, true).is_some() && sessions.dashboard(1, true).is_none());
        assert!(sessions.dashboard(3, true).is_none(), "the session has ended");
        let all = sessions.all();
        assert!(matches!(&all[0], SessionChange::Opened { sessions, .. } if sessions.len() == 2));
        assert_eq!(
            all[1..],
            [SessionChange::Dashboard { user: ann.clone(), session: 1, state: Dashboard::Entered }]
        );
        assert_eq!(
            sessions.end(1, Some(now)),
            [
                SessionChange::Ended { user: ann.clone(), session: 1 },
                SessionChange::Dashboard { user: ann.clone(), session: 1, state: Dashboard::Lost(now) },
            ]
        );
        assert_eq!(sessions.end(1, None), []);
        assert_eq!(sessions.end(2, None), [SessionChange::Ended { user: ann, session: 2 }]);
        assert_eq!(sessions.all(), []);
    }
}
