//! The record of one event.

use serde::{Deserialize, Serialize};

use super::super::database::Fault;
use crate::activity::{Audience, Event, Origin, Scope};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub event: Event,
    /// Who could see the event when it was stored. `None` means nobody.
    pub audience: Option<Audience>,
    pub high_volume: bool,
}

impl Record {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// The key of a scope in `activityByScope`.
pub(super) fn scope_key(scope: &Scope) -> String {
    match scope {
        Scope::Org(org) => format!("o:{org}"),
        Scope::User(user) => format!("u:{user}"),
    }
}

/// The key of a reporter's idempotency key in `activityIds`.
pub(super) fn id_key<'a>(origin: &'a Origin, id: &'a str) -> (&'a str, &'a str, &'a str) {
    let org = origin.org.as_ref().map_or("", |org| org.as_str());
    let user = origin.reported_by.as_ref().map_or("", |user| user.as_str());
    (org, user, id)
}
