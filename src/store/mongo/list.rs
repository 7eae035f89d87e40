//! Reads pages of tasks, the newest task first.

use super::{
    MongoStore,
    list_query::ListQuery,
    read,
    select::{AccessFilters, list_conditions},
};
use crate::{
    store::{Cursor, Page, StoreError, TaskFilter},
    task::{Task, Viewer},
};

pub(super) async fn list(
    store: &MongoStore,
    viewer: &Viewer,
    filter: &TaskFilter,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page, StoreError> {
    let matches = |task: &Task| task.access.allows(viewer) && filter.matches(task);
    let filters = AccessFilters::for_list(viewer, filter, &store.config.default_org);
    let query = ListQuery { store, filters, conditions: list_conditions(filter), matches: &matches };
    let mut session = read::snapshot(store, None).await?;
    let first_page = Cursor::default();
    let (listed, next) = query.page(&mut session, cursor.unwrap_or(&first_page), limit).await?;
    // A list that can have no task, because the filter names another creator, makes no read.
    let time = match session.snapshot_time() {
        Some(time) => time,
        None => read::current_snapshot_time(store).await?,
    };
    let tasks = listed.into_iter().map(|listed| listed.task).collect();
    Ok(Page { tasks, next, position: read::position(time) })
}
