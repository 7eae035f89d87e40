//! The ring of recent steps, for joins whose snapshot is a little old. A join reads only the steps that concern its rooms.

use std::{collections::VecDeque, time::Duration};

use super::{
    index::{ENTRY_BYTES, Index},
    kind::FanoutStep,
    sizes::RingSizes,
};
use crate::feed::Position;

#[derive(Debug)]
pub(super) struct Ring<S: FanoutStep> {
    /// Each step with the rooms whose joins read it.
    steps: VecDeque<(S, Vec<S::Key>)>,
    /// The number of the oldest step. The steps are numbered in their order.
    first: u64,
    index: Index<S::Key>,
    bytes: usize,
    max_bytes: usize,
    /// The ring holds everything after this position. `None` means that the ring is closed.
    floor: Option<Position>,
}

impl<S: FanoutStep> Ring<S> {
    pub fn new(max_bytes: usize) -> Self {
        Self { steps: VecDeque::new(), first: 0, index: Index::default(), bytes: 0, max_bytes, floor: None }
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
        self.index.clear();
        self.bytes = 0;
        self.floor = None;
    }

    /// Adds a step. `keys` are its [`FanoutStep::keys`].
    pub fn push(&mut self, step: S, mut keys: Vec<S::Key>) {
        keys.retain(|key| step.is_read_by_joins(key));
        let number = self.first + self.steps.len() as u64;
        for key in &keys {
            self.index.add(key, number);
        }
        self.bytes += size(&step, &keys);
        self.steps.push_back((step, keys));
        while self.bytes > self.max_bytes && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((oldest, keys)) = self.steps.pop_front() else { return false };
        for key in &keys {
            self.index.remove(key, self.first);
        }
        self.bytes -= size(&oldest, &keys);
        self.floor = self.floor.max(Some(oldest.position()));
        self.first += 1;
        true
    }

    pub fn sizes(&self) -> RingSizes {
        let at = |step: Option<&(S, _)>| step.map_or(0, |(step, _)| step.occurred_at().millis());
        let span = at(self.steps.back()).saturating_sub(at(self.steps.front()));
        RingSizes {
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

    /// The steps after `position` that concern a room, in order.
    pub fn of(&self, key: &S::Key, position: Position) -> impl DoubleEndedIterator<Item = &S> {
        self.index.from(key, self.number_after(position)).filter_map(|number| self.step(number))
    }

    /// The steps after `position` that concern any of these rooms, in order and each once.
    pub fn of_any(&self, keys: &[S::Key], position: Position) -> impl Iterator<Item = &S> {
        let start = self.number_after(position);
        let mut rooms: Vec<_> = keys.iter().map(|key| self.index.from(key, start).peekable()).collect();
        std::iter::from_fn(move || {
            let next = rooms.iter_mut().filter_map(|numbers| numbers.peek().copied()).min()?;
            for numbers in &mut rooms {
                numbers.next_if_eq(&next);
            }
            Some(next)
        })
        .filter_map(|number| self.step(number))
    }

    /// The number of the first step that has events after `position`.
    fn number_after(&self, position: Position) -> u64 {
        self.first + self.steps.partition_point(|(step, _)| step.position() <= position) as u64
    }

    fn step(&self, number: u64) -> Option<&S> {
        let (step, _) = self.steps.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        Some(step)
    }
}

fn size<S: FanoutStep>(step: &S, keys: &[S::Key]) -> usize {
    step.held_bytes() + keys.len() * (size_of::<S::Key>() + ENTRY_BYTES)
}

#[cfg(test)]
mod tests;
