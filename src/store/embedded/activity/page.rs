//! Reads pages of events.

use redb::{ReadTransaction, TableError};

use super::{
    super::database::{Fault, TASKS},
    BY_SCOPE, EVENTS,
    append::audience,
    record::{Record, scope_key},
};
use crate::{
    activity::Scope,
    feed::Position,
    store::{EventPage, EventQuery},
    task::{DefaultOrg, Viewer},
};

/// A page examines at most this many events. Patterns and projects have no index, so that a rare type in a busy organisation would
/// otherwise cost a scan of everything.
const MAX_EXAMINED: usize = 10_000;
/// … and about this many bytes of records.
const MAX_EXAMINED_BYTES: usize = 8 << 20;
/// A page has at most about this many bytes of records. As JSON values in memory, they need many times more.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// The newest events that the query selects and the viewer may see. A task may have become private since its events were stored, so the
/// current access to the task counts as well.
pub(in super::super) fn page(
    txn: &ReadTransaction,
    viewer: &Viewer,
    query: &EventQuery,
    default_org: &DefaultOrg,
) -> Result<EventPage, Fault> {
    let by_scope = match txn.open_table(BY_SCOPE) {
        // Nothing was reported yet.
        Err(TableError::TableDoesNotExist(_)) => return Ok(EventPage::default()),
        table => table?,
    };
    let (events, tasks) = (txn.open_table(EVENTS)?, txn.open_table(TASKS)?);
    let scope = scope_key(&Scope::of(viewer));
    // No event ever gets the greatest number.
    let first = query.since.map_or(0, |since| since.time.saturating_add(1));
    let end = query.before.map_or(u64::MAX, |before| before.time);
    let (mut page, mut examined_bytes, mut page_bytes) = (EventPage::default(), 0, 0);
    if first >= end {
        return Ok(page);
    }
    for (examined, item) in by_scope.range((&*scope, first)..(&*scope, end))?.rev().enumerate() {
        let (_, number) = item?.0.value();
        let is_full = page.events.len() == query.limit || page_bytes >= MAX_PAGE_BYTES;
        if is_full || examined == MAX_EXAMINED || examined_bytes >= MAX_EXAMINED_BYTES {
            page.next = Some(Position::change(number + 1, 0));
            break;
        }
        let Some(bytes) = events.get(number)? else { continue };
        let bytes = bytes.value();
        examined_bytes += bytes.len();
        let Record { event, audience: stored, high_volume } = Record::decode(bytes)?;
        if !query.selects(&event, high_volume) {
            continue;
        }
        let is_visible = event.is_own(viewer)
            || stored.is_some_and(|audience| audience.allows(viewer))
                && audience(&event, &tasks, default_org)?.is_some_and(|audience| audience.allows(viewer));
        if is_visible {
            page_bytes += bytes.len();
            page.events.push(event);
        }
    }
    Ok(page)
}
