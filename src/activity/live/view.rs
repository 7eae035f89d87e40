//! What viewers see of the live entities of a scope.

use std::collections::BTreeMap;

use super::{
    entity::EntityCopy,
    expiry::{merged_expires_at, removed_at},
    fold::LiveEntities,
    key::EntityKey,
    merged::{Entity, merge},
};
use crate::{
    activity::Audience,
    task::{Timestamp, UserId, Viewer},
};

impl LiveEntities {
    /// An entity as a viewer sees it. `None` means that the viewer sees none: it does not exist, its time is over, or it
    /// follows only from events that the viewer may not see.
    pub fn entity<'a>(&'a self, viewer: &Viewer, key: &EntityKey, now: Timestamp) -> Option<Entity<'a>> {
        let (key, copies) = self.entities.get_key_value(key)?;
        merged(key, copies, now, |audience| audience.allows(viewer))
    }

    /// An entity as members of the organisation see it who have no copy of their own.
    pub fn public_entity<'a>(&'a self, key: &EntityKey, now: Timestamp) -> Option<Entity<'a>> {
        let (key, copies) = self.entities.get_key_value(key)?;
        merged(key, copies, now, |audience| matches!(audience, Audience::Org(_)))
    }

    /// The users who have a copy of their own of an entity. They may see it differently from others.
    pub fn users_with_own_copy(&self, key: &EntityKey) -> impl Iterator<Item = &UserId> {
        self.entities.get(key).into_iter().flat_map(BTreeMap::keys).filter_map(|audience| match audience {
            Audience::User { user, .. } => Some(user),
            Audience::Org(_) => None,
        })
    }

    /// All entities that a viewer sees, ordered by kind, id and project.
    pub fn entities<'a>(&'a self, viewer: &'a Viewer, now: Timestamp) -> impl Iterator<Item = Entity<'a>> {
        self.entities
            .iter()
            .filter_map(move |(key, copies)| merged(key, copies, now, |audience| audience.allows(viewer)))
    }

    /// The entities of one kind that a viewer sees, ordered by id and project.
    pub fn entities_of_kind<'a>(
        &'a self,
        viewer: &'a Viewer,
        kind: &'a str,
        now: Timestamp,
    ) -> impl Iterator<Item = Entity<'a>> {
        self.of_kind(kind)
            .filter_map(move |(key, copies)| merged(key, copies, now, |audience| audience.allows(viewer)))
    }

    /// The entity of a kind that has not ended and began last.
    pub fn newest_open<'a>(
        &'a self,
        viewer: &'a Viewer,
        kind: &'a str,
        now: Timestamp,
    ) -> Option<Entity<'a>> {
        let open = self.entities_of_kind(viewer, kind, now).filter(|entity| entity.ended_at.is_none());
        open.max_by_key(|entity| entity.begun)
    }
}

fn merged<'a>(
    key: &'a EntityKey,
    copies: &'a BTreeMap<Audience, EntityCopy>,
    now: Timestamp,
    is_seen: impl Fn(&Audience) -> bool,
) -> Option<Entity<'a>> {
    let now = now.millis();
    let seen = || copies.iter().filter(|(audience, _)| is_seen(audience));
    let all: Vec<&EntityCopy> = seen().map(|(_, copy)| copy).collect();
    if merged_expires_at(&all).is_some_and(|expires_at| expires_at <= now) {
        return None;
    }
    // What is shown must not depend on whether the fold has already removed a copy whose time is over.
    let is_kept = |(audience, copy): &(&Audience, &EntityCopy)| {
        removed_at(copies, audience, copy).is_none_or(|removed_at| removed_at > now)
    };
    let kept: Vec<&EntityCopy> = seen().filter(is_kept).map(|(_, copy)| copy).collect();
    merge(key, &kept, now)
}
