//! The counts for `dashboard:task_count_changed`. Each change updates the counts of the viewers that it concerns.
//!
//! A viewer's counts are the sum of two cells. One has the public tasks of its organisation, and all members share it. The
//! other has the viewer's other tasks. A change moves at most two cells of the first kind, and only its creators' cells of
//! the second.

use std::collections::HashSet;

use super::Key;
use crate::{
    fanout::ring::Ring,
    feed::{CountChange, CountsAt, Position, Step},
    shrinking_map::ShrinkingMap,
    task::{Counts, OrgId, UserId, Viewer},
};

#[derive(Debug)]
struct Cell {
    kept: CountsAt,
    /// The number of dashboards that need the cell.
    users: usize,
}

#[derive(Debug, Default)]
pub struct CountBook {
    public: ShrinkingMap<OrgId, Cell>,
    /// A user has one cell for each organisation of its connections. Most users have one, which needs no map.
    own: ShrinkingMap<UserId, Vec<(Option<OrgId>, Cell)>>,
    /// The organisations whose counts may differ from the counts that were sent. `dirty_users` has the users.
    pub dirty_orgs: HashSet<OrgId>,
    pub dirty_users: HashSet<UserId>,
}

impl CountBook {
    /// Adds a dashboard of `viewer` with a snapshot at `at`. `ring` has all steps after `at` that have been applied.
    pub fn enter(
        &mut self,
        viewer: &Viewer,
        (public, own): (Counts, Counts),
        at: Position,
        ring: &Ring<Step>,
    ) {
        let fresh = |counts| Cell { kept: CountsAt { counts, as_of: at }, users: 0 };
        if let Some(org) = &viewer.org {
            let cell = self.public.entry(org.clone()).or_insert_with(|| {
                let mut cell = fresh(public);
                for step in ring.of(&Key::Org(org.clone()), at) {
                    cell.kept.shift(step.position, step.counted.public(org));
                }
                cell
            });
            cell.users += 1;
        }
        let cells = self.own.entry(viewer.user.clone()).or_insert_with(|| Vec::with_capacity(1));
        match cells.iter_mut().find(|(org, _)| *org == viewer.org) {
            Some((_, cell)) => cell.users += 1,
            None => {
                let mut cell = Cell { users: 1, ..fresh(own) };
                for step in ring.of(&Key::User(viewer.user.clone()), at) {
                    let shift = step.counted.own(&viewer.user, viewer.org.as_ref());
                    cell.kept.shift(step.position, shift);
                }
                cells.push((viewer.org.clone(), cell));
            }
        }
        self.dirty_users.insert(viewer.user.clone());
    }

    pub fn leave(&mut self, viewer: &Viewer) {
        if let Some(org) = &viewer.org
            && let Some(cell) = self.public.get_mut(org)
        {
            cell.users -= 1;
            if cell.users == 0 {
                self.public.remove(org);
            }
        }
        if let Some(cells) = self.own.get_mut(&viewer.user) {
            cells.retain_mut(|(org, cell)| {
                cell.users -= usize::from(*org == viewer.org);
                cell.users > 0
            });
            if cells.is_empty() {
                self.own.remove(&viewer.user);
            }
        }
    }

    pub fn apply(&mut self, counted: &CountChange, position: Position) {
        if counted.is_unchanged() {
            return;
        }
        for org in counted.orgs() {
            if let Some(cell) = self.public.get_mut(org) {
                cell.kept.shift(position, counted.public(org));
                self.dirty_orgs.insert(org.clone());
            }
        }
        for user in counted.creators() {
            for (org, cell) in self.own.get_mut(user).into_iter().flatten() {
                cell.kept.shift(position, counted.own(user, org.as_ref()));
                self.dirty_users.insert(user.clone());
            }
        }
    }

    /// The counts of `viewer`. Returns `None` while a cell is ahead of `position` or missing.
    pub fn of(&self, viewer: &Viewer, position: Position) -> Option<Counts> {
        let current = |cell: &Cell| (cell.kept.as_of <= position).then_some(cell.kept.counts);
        let public = match &viewer.org {
            Some(org) => current(self.public.get(org)?)?,
            None => Counts::default(),
        };
        let (_, own) = self.own.get(&viewer.user)?.iter().find(|(org, _)| *org == viewer.org)?;
        let own = current(own)?;
        Some(public.plus(own))
    }

    /// The number of organisations with dashboards.
    pub fn orgs(&self) -> usize {
        self.public.len()
    }

    /// The number of users with dashboards.
    pub fn users(&self) -> usize {
        self.own.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.public.is_empty() && self.own.is_empty()
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty_orgs.is_empty() || !self.dirty_users.is_empty()
    }
}
