//! The last events, for whoever's snapshot is a little old.

use std::{collections::VecDeque, time::Duration};

use super::fill::RingFill;
use crate::feed::{Position, Step};

/// What a step takes beside its packets.
const STEP_OVERHEAD: usize = 256;

#[derive(Debug)]
pub struct Ring {
    steps: VecDeque<Step>,
    bytes: usize,
    max_bytes: usize,
    /// Everything after this position is held. None: nothing is known yet.
    floor: Option<Position>,
}

impl Ring {
    pub fn new(max_bytes: usize) -> Self {
        Self { steps: VecDeque::new(), bytes: 0, max_bytes, floor: None }
    }

    /// Starts anew: everything after `floor` will be pushed.
    pub fn open(&mut self, floor: Position) {
        self.close();
        self.floor = Some(floor);
    }

    /// Something was missed: nothing can be replayed.
    pub fn close(&mut self) {
        self.steps.clear();
        self.bytes = 0;
        self.floor = None;
    }

    pub fn push(&mut self, step: Step) {
        self.bytes += size(&step);
        self.steps.push_back(step);
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes -= size(&oldest);
            self.floor = self.floor.max(Some(oldest.position));
        }
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

    /// Whether everything after `position` is held.
    pub fn holds(&self, position: Position) -> bool {
        self.floor.is_some_and(|floor| position >= floor)
    }

    /// The steps that have events after `position`, in order.
    pub fn after(&self, position: Position) -> impl Iterator<Item = &Step> {
        let start = self.steps.partition_point(|step| step.position <= position);
        self.steps.range(start..)
    }
}

fn size(step: &Step) -> usize {
    STEP_OVERHEAD + step.events().map(|event| event.packet.size() + size_of_val(event)).sum::<usize>()
}
