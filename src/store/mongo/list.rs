//! Reads pages of tasks, the newest task first.

use super::{
    MongoStore,
    newest::Looked,
    read,
    select::{Visible, narrowed},
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
    let passes = |task: &Task| task.access.allows(viewer) && filter.matches(task);
    let ways = Visible::listed(viewer, filter, &store.config.default_org);
    let looked = Looked { store, ways, conditions: narrowed(filter), passes: &passes };
    let mut session = read::snapshot(store, None).await?;
    let from_the_beginning = Cursor::default();
    let (listed, next) = looked.page(&mut session, cursor.unwrap_or(&from_the_beginning), limit).await?;
    Ok(Page { tasks: listed.into_iter().map(|listed| listed.task).collect(), next })
}
