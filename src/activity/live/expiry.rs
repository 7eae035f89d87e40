//! When the copies of an entity are removed.
//!
//! A viewer sees the copy of its organisation and its own, merged. The end of an entity may be in either. If the copy with the end were
//! removed alone, the other would show the entity as running again. A user's own copy therefore expires with what the user sees.

use std::collections::BTreeMap;

use super::{
    entity::{EntityCopy, expires_at},
    merged::present_run,
};
use crate::activity::Audience;

/// When what a viewer sees of these copies is over. `None` means never.
pub(super) fn merged_expires_at(copies: &[&EntityCopy]) -> Option<i64> {
    let copies = present_run(copies);
    let ended = copies.iter().filter_map(|copy| copy.ended).max_by_key(|ended| ended.position);
    let stale_after =
        copies.iter().filter_map(|copy| copy.stale_after).max_by_key(|stale_after| stale_after.position);
    let updated_at = copies.iter().map(|copy| copy.updated_at).max()?;
    expires_at(ended.map(|ended| ended.at), updated_at, stale_after.map(|stale_after| stale_after.millis))
}

/// When one of the copies of an entity is removed, if nothing happens before. `None` means never.
pub(super) fn removed_at(
    copies: &BTreeMap<Audience, EntityCopy>,
    audience: &Audience,
    copy: &EntityCopy,
) -> Option<i64> {
    let mut of_org = copies.iter().filter(|(audience, _)| matches!(audience, Audience::Org(_)));
    match (audience, of_org.next()) {
        (Audience::User { .. }, Some((_, org))) => {
            Some(merged_expires_at(&[org, copy])?.max(org.expires_at()?))
        }
        _ => copy.expires_at(),
    }
}
