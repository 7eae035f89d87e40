//! Who may see an event.

use serde::{Deserialize, Serialize};

use crate::task::{Access, OrgId, UserId, Viewer};

/// The users who may see an event, and the live entities that follow from it.
///
/// A user counts only on connections of the organisation of the event, because each connection shows one organisation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "StoredAudience", try_from = "StoredAudience")]
pub enum Audience {
    /// All members of an organisation.
    Org(OrgId),
    /// One user, on connections of this organisation, or on connections without an organisation.
    User { user: UserId, org: Option<OrgId> },
}

/// A set of events that are counted together: those of an organisation, or those of a user without one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Org(OrgId),
    User(UserId),
}

impl Audience {
    /// The audience of an event that names no known task. `None` means that nobody may see the event.
    pub fn of_reporter(org: Option<&OrgId>, reporter: Option<&UserId>) -> Option<Self> {
        match (org, reporter) {
            (Some(org), _) => Some(Self::Org(org.clone())),
            (None, Some(user)) => Some(Self::User { user: user.clone(), org: None }),
            (None, None) => None,
        }
    }

    /// The members of this audience who may see a task. `None` means that none of them may.
    ///
    /// An event never leaves its own organisation, so a user cannot send events to another organisation by naming one of
    /// its tasks.
    pub fn narrowed_by(self, access: &Access) -> Option<Self> {
        match self {
            Self::Org(org) if access.is_only_its_creators(Some(&org)) => {
                access.creator.clone().map(|user| Self::User { user, org: Some(org) })
            }
            Self::User { user, org } => {
                let viewer = Viewer { user, org };
                access.allows(&viewer).then_some(Self::User { user: viewer.user, org: viewer.org })
            }
            org @ Self::Org(_) => Some(org),
        }
    }

    pub fn allows(&self, viewer: &Viewer) -> bool {
        match self {
            Self::Org(org) => viewer.org.as_ref() == Some(org),
            Self::User { user, org } => viewer.user == *user && viewer.org == *org,
        }
    }

    pub fn scope(&self) -> Scope {
        match self {
            Self::Org(org) | Self::User { org: Some(org), .. } => Scope::Org(org.clone()),
            Self::User { user, org: None } => Scope::User(user.clone()),
        }
    }
}

impl Scope {
    /// The scope that a viewer sees.
    pub fn of(viewer: &Viewer) -> Self {
        viewer.org.clone().map_or_else(|| Self::User(viewer.user.clone()), Self::Org)
    }
}

/// The form in which a checkpoint has an audience.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAudience {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    org: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

impl From<Audience> for StoredAudience {
    fn from(audience: Audience) -> Self {
        let (user, org) = match audience {
            Audience::Org(org) => (None, Some(org)),
            Audience::User { user, org } => (Some(user), org),
        };
        Self { org: org.map(|org| org.to_string()), user: user.map(|user| user.to_string()) }
    }
}

impl TryFrom<StoredAudience> for Audience {
    type Error = &'static str;

    fn try_from(stored: StoredAudience) -> Result<Self, Self::Error> {
        let org = stored.org.as_deref().map(OrgId::parse);
        let user = stored.user.as_deref().map(UserId::parse);
        match (user, org) {
            (None, Some(Some(org))) => Ok(Self::Org(org)),
            (Some(Some(user)), None) => Ok(Self::User { user, org: None }),
            (Some(Some(user)), Some(Some(org))) => Ok(Self::User { user, org: Some(org) }),
            _ => Err("an audience needs an org or a user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(text: &str) -> OrgId {
        OrgId::parse(text).expect("an id")
    }

    fn user(text: &str) -> UserId {
        UserId::parse(text).expect("an id")
    }

    fn viewers() -> Vec<Viewer> {
        let orgs = [None, Some(org("a")), Some(org("b"))];
        let users = ["u", "v"].map(user);
        users.iter().flat_map(|user| orgs.clone().map(|org| Viewer { user: user.clone(), org })).collect()
    }

    #[test]
    fn the_audience_of_a_task_is_never_larger_than_the_audience_of_the_event_or_of_the_task() {
        let audiences = [
            Audience::Org(org("a")),
            Audience::User { user: user("u"), org: None },
            Audience::User { user: user("v"), org: Some(org("a")) },
        ];
        for audience in audiences {
            for creator in [None, Some(user("u")), Some(user("v"))] {
                for task_org in [None, Some(org("a")), Some(org("b"))] {
                    for private in [false, true] {
                        let access = Access { creator: creator.clone(), org: task_org.clone(), private };
                        let narrowed = audience.clone().narrowed_by(&access);
                        for viewer in viewers() {
                            let expected = audience.allows(&viewer) && access.allows(&viewer);
                            let sees = narrowed.as_ref().is_some_and(|narrowed| narrowed.allows(&viewer));
                            assert_eq!(sees, expected, "{audience:?} {access:?} {viewer:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_event_without_an_organisation_is_its_reporters_only() {
        assert_eq!(Audience::of_reporter(None, None), None);
        let own = Audience::of_reporter(None, Some(&user("u"))).expect("an audience");
        let seen: Vec<Viewer> = viewers().into_iter().filter(|viewer| own.allows(viewer)).collect();
        assert_eq!(seen, [Viewer { user: user("u"), org: None }]);
        assert_eq!(Audience::of_reporter(Some(&org("a")), Some(&user("u"))), Some(Audience::Org(org("a"))));
    }

    #[test]
    fn a_viewer_sees_only_audiences_of_its_scope_and_audiences_are_stored() {
        let audiences = [
            Audience::Org(org("a")),
            Audience::User { user: user("u"), org: None },
            Audience::User { user: user("u"), org: Some(org("a")) },
        ];
        for audience in audiences {
            for viewer in viewers().iter().filter(|viewer| audience.allows(viewer)) {
                assert_eq!(audience.scope(), Scope::of(viewer));
            }
            let json = serde_json::to_string(&audience).expect("serialises");
            assert_eq!(serde_json::from_str::<Audience>(&json).expect("reads"), audience);
        }
        for wrong in ["{}", r#"{"org":""}"#, r#"{"user":"","org":"a"}"#, r#"{"org":"a","x":1}"#] {
            assert!(serde_json::from_str::<Audience>(wrong).is_err(), "{wrong}");
        }
    }
}
