//! The ring of recent steps, for joins whose snapshot is a little old. A join reads only the steps that concern its room.

use std::{collections::VecDeque, time::Duration};

use super::{
    fill::RingFill,
    index::{ENTRY_BYTES, Index},
};
use crate::{
    feed::{Position, Step},
    task::{Access, OrgId, TaskId, UserId, Viewer},
};

#[derive(Debug)]
pub struct Ring {
    steps: VecDeque<Step>,
    /// The number of the oldest step. The steps are numbered in their order.
    first: u64,
    of_task: Index<TaskId>,
    of_org: Index<OrgId>,
    of_user: Index<UserId>,
    bytes: usize,
    max_bytes: usize,
    /// The ring holds everything after this position. `None` means that the ring is closed.
    floor: Option<Position>,
}

impl Ring {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            steps: VecDeque::new(),
            first: 0,
            of_task: Index::default(),
            of_org: Index::default(),
            of_user: Index::default(),
            bytes: 0,
            max_bytes,
            floor: None,
        }
    }

    /// Starts again with an empty ring. The caller will push everything after `floor`.
    pub fn open(&mut self, floor: Position) {
        self.close();
        self.floor = Some(floor);
    }

    /// Empties the ring, because changes may have been missed. Nothing can be replayed until [`Ring::open`].
    pub fn close(&mut self) {
        self.first += self.steps.len() as u64;
        self.steps.clear();
        self.of_task.clear();
        self.of_org.clear();
        self.of_user.clear();
        self.bytes = 0;
        self.floor = None;
    }

    pub fn push(&mut self, step: Step) {
        let number = self.first + self.steps.len() as u64;
        let mut entries = 0;
        if concerns_members(&step) {
            self.of_task.add(&step.task, number);
            entries += 1;
        }
        for org in orgs(&step) {
            self.of_org.add(org, number);
            entries += 1;
        }
        for user in users(&step) {
            self.of_user.add(user, number);
            entries += 1;
        }
        self.bytes += size(&step, entries);
        self.steps.push_back(step);
        while self.bytes > self.max_bytes && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.steps.pop_front() else { return false };
        let mut entries = 0;
        if concerns_members(&oldest) {
            self.of_task.remove(&oldest.task, self.first);
            entries += 1;
        }
        for org in orgs(&oldest) {
            self.of_org.remove(org, self.first);
            entries += 1;
        }
        for user in users(&oldest) {
            self.of_user.remove(user, self.first);
            entries += 1;
        }
        self.bytes -= size(&oldest, entries);
        self.floor = self.floor.max(Some(oldest.position));
        self.first += 1;
        true
    }

    pub fn fill(&self) -> RingFill {
        let at = |step: Option<&Step>| step.map_or(0, |step| step.occurred_at.millis());
        let span = at(self.steps.back()).saturating_sub(at(self.steps.front()));
        RingFill {
            bytes: self.bytes,
            max_bytes: self.max_bytes,
            steps: self.steps.len(),
            span: Duration::from_millis(span.try_into().unwrap_or(0)),
        }
    }

    /// Returns whether the ring holds everything after `position`.
    pub fn holds(&self, position: Position) -> bool {
        self.floor.is_some_and(|floor| position >= floor)
    }

    /// The steps after `position` that concern the room of a task, in order: steps with events for its members, and steps that
    /// change who sees the task.
    pub fn of_task(&self, task: &TaskId, position: Position) -> impl DoubleEndedIterator<Item = &Step> {
        self.of_task.from(task, self.number_after(position)).filter_map(|number| self.step(number))
    }

    /// The steps after `position` that concern the public tasks of an organisation, in order: steps with events for
    /// dashboards, and steps that change counts.
    pub fn of_org(&self, org: Option<&OrgId>, position: Position) -> impl Iterator<Item = &Step> {
        self.numbers_of_org(org, position).filter_map(|number| self.step(number))
    }

    /// The same for the tasks that a user has created.
    pub fn of_user(&self, user: &UserId, position: Position) -> impl Iterator<Item = &Step> {
        self.of_user.from(user, self.number_after(position)).filter_map(|number| self.step(number))
    }

    /// The steps of both, in order and each once: all steps that concern this viewer's dashboard.
    pub fn of_dashboard(&self, viewer: &Viewer, position: Position) -> impl Iterator<Item = &Step> {
        let mut of_org = self.numbers_of_org(viewer.org.as_ref(), position).peekable();
        let mut of_user = self.of_user.from(&viewer.user, self.number_after(position)).peekable();
        std::iter::from_fn(move || {
            let next = of_org.peek().into_iter().chain(of_user.peek()).min().copied()?;
            of_org.next_if_eq(&next);
            of_user.next_if_eq(&next);
            Some(next)
        })
        .filter_map(|number| self.step(number))
    }

    fn numbers_of_org(&self, org: Option<&OrgId>, position: Position) -> impl Iterator<Item = u64> {
        let start = self.number_after(position);
        org.into_iter().flat_map(move |org| self.of_org.from(org, start))
    }

    /// The number of the first step that has events after `position`.
    fn number_after(&self, position: Position) -> u64 {
        self.first + self.steps.partition_point(|step| step.position <= position) as u64
    }

    fn step(&self, number: u64) -> Option<&Step> {
        self.steps.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

fn size(step: &Step, entries: usize) -> usize {
    let events = step.events().map(|event| event.message.held_bytes() + size_of_val(event)).sum::<usize>();
    size_of::<Step>() + entries * ENTRY_BYTES + events
}

fn concerns_members(step: &Step) -> bool {
    !step.room.is_empty() || step.before != step.after
}

fn orgs(step: &Step) -> impl Iterator<Item = &OrgId> {
    distinct(step, Access::public_org)
}

fn users(step: &Step) -> impl Iterator<Item = &UserId> {
    distinct(step, |access| access.creator.as_ref())
}

/// The keys of those that see or saw the task, each once. A step that does not concern dashboards gives none.
fn distinct<'a, T: PartialEq + 'a>(
    step: &'a Step,
    key: impl Fn(&'a Access) -> Option<&'a T> + Copy,
) -> impl Iterator<Item = &'a T> {
    let keys = move || accesses(step).filter_map(key);
    keys()
        .enumerate()
        .filter(move |(n, found)| !keys().take(*n).any(|before| before == *found))
        .map(|(_, key)| key)
}

fn accesses(step: &Step) -> impl Iterator<Item = &Access> {
    let concerns_dashboards =
        !step.listed.is_empty() || step.unlisted.is_some() || step.counted.from != step.counted.to;
    let counted = step.counted.from.iter().chain(&step.counted.to).map(|(access, _)| access);
    step.before.iter().chain(&step.after).chain(counted).filter(move |_| concerns_dashboards)
}

#[cfg(test)]
mod tests;
