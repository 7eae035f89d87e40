//! Keeps counts in memory. They are read once from an index, and each change that the feed reads updates them.
//!
//! A dashboard is read at one moment, and the feed is a little before or after this moment. Once the feed has read all changes up to the
//! moment, the counts of the moment are the current counts without the later changes.

use std::{collections::VecDeque, time::Duration};

use mongodb::bson::Document;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use crate::{
    feed::{Change, Counted, CountsAt, Position, Shift},
    shrinking_map::ShrinkingMap,
    task::{Counts, OrgId, UserId},
};

/// The maximum number of cells. Above it, the least recently used cells are evicted. A cell takes about 200 bytes.
const MOST_CELLS: usize = 20_000;
/// The maximum number of remembered changes. They are subtracted from current counts, and added to counts whose read took MongoDB a long
/// time.
const MOST_RECENT: usize = 16_384;
/// Changes are remembered for this time, because MongoDB can't read an earlier moment.
const RECENT: Duration = Duration::from_secs(300);
/// A feed that is this many seconds behind a moment is too far behind to wait for.
const FAR_BEHIND: u64 = 2;

/// The tasks that are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The tasks that everybody in an organisation sees.
    Org(OrgId),
    /// The tasks of this user that nobody else in this organisation sees. Without an organisation, these are all tasks of the user.
    Own(UserId, Option<OrgId>),
}

/// The organisation or user whose counts a change can affect.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Subject {
    Org(OrgId),
    User(UserId),
}

impl Whose {
    fn subject(&self) -> Subject {
        match self {
            Self::Org(org) => Subject::Org(org.clone()),
            Self::Own(user, _) => Subject::User(user.clone()),
        }
    }

    fn shift(&self, counted: &Counted) -> Shift {
        match self {
            Self::Org(org) => counted.public(org),
            Self::Own(user, org) => counted.own(user, org.as_ref()),
        }
    }
}

/// The counts that this node keeps, and the position up to which the feed has updated them.
#[derive(Debug, Default)]
pub(super) struct KeptCounts {
    kept: Mutex<Kept>,
    /// Notifies waiting callers when the feed advances.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    /// `None` means that no feed reads the changes, or that some changes may have been missed.
    reached: Option<Reached>,
    /// The changes that affected counts, the newest last.
    recent: VecDeque<(Position, Counted)>,
    cells: ShrinkingMap<Subject, Vec<Cell>>,
    number: usize,
    /// The number of requests so far. It shows which cells were least recently used.
    asked: u64,
}

#[derive(Debug)]
struct Reached {
    /// All changes up to here have been read.
    complete: Position,
    /// The last change that was read.
    newest: Position,
    /// All later changes that affected counts are in `recent`.
    recent_after: Position,
    /// The token after which the stream had no more changes, and the last change at that time.
    token: Option<(Document, Position)>,
}

#[derive(Debug)]
struct Cell {
    whose: Whose,
    kept: CountsAt,
    /// The number of the last request for this cell.
    asked: u64,
}

/// How far the feed is from a moment.
#[derive(Debug, PartialEq)]
pub(super) enum Distance {
    /// The feed has read all changes up to the moment.
    Reached,
    /// The feed has read all changes up to this token.
    Behind(Document),
    /// The feed is reading changes now.
    Reading,
    /// Waiting is useless, because no feed reads the changes, or because the feed is far behind.
    TooFar,
}

/// Returns whether a feed that reads the changes of this cluster time is far behind a moment.
pub(super) fn is_far_behind(time: u64, moment: Position) -> bool {
    time + (FAR_BEHIND << 32) <= moment.time
}

impl KeptCounts {
    /// The feed will report every change after `position`.
    pub(super) fn opened(&self, position: Position) {
        let reached = Reached { complete: position, newest: position, recent_after: position, token: None };
        *self.kept.lock() = Kept { reached: Some(reached), ..Kept::default() };
    }

    /// Forgets all counts, because changes may have been missed.
    pub(super) fn lost(&self) {
        *self.kept.lock() = Kept::default();
        self.moved.notify_waiters();
    }

    pub(super) fn change(&self, change: &Change) {
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        let Some(reached) = &mut kept.reached else { return };
        let position = change.position;
        reached.newest = position;
        reached.complete = reached.complete.max(position);
        let counted = Counted::of(change.before.as_ref(), change.after.as_ref());
        if !counted.moves_nothing() {
            let orgs = counted.orgs().cloned().map(Subject::Org);
            for subject in orgs.chain(counted.creators().cloned().map(Subject::User)) {
                for cell in kept.cells.get_mut(&subject).into_iter().flatten() {
                    cell.kept.shift(position, cell.whose.shift(&counted));
                }
            }
            kept.recent.push_back((position, counted));
            let old = Position::before(position.time.saturating_sub(RECENT.as_secs() << 32));
            while kept.recent.len() > MOST_RECENT || kept.recent.front().is_some_and(|(at, _)| *at < old) {
                if let Some((at, _)) = kept.recent.pop_front() {
                    reached.recent_after = at;
                }
            }
        }
        self.moved.notify_waiters();
    }

    /// All changes up to `complete` have been read. After `token`, the stream had no more changes. `None` means that it had more changes.
    /// The last change may then be in the middle of a transaction.
    pub(super) fn reached(&self, complete: Position, token: Option<&Document>) {
        let mut kept = self.kept.lock();
        if let Some(reached) = &mut kept.reached {
            reached.complete = reached.complete.max(complete);
            reached.token = token.map(|token| (token.clone(), reached.newest));
            self.moved.notify_waiters();
        }
    }

    /// Another reader found no change between this token and this position.
    pub(super) fn nothing_since(&self, token: &Document, up_to: Position) {
        let mut kept = self.kept.lock();
        if let Some(reached) = &mut kept.reached
            && reached
                .token
                .as_ref()
                .is_some_and(|(known, newest)| known == token && *newest == reached.newest)
        {
            reached.complete = reached.complete.max(up_to);
            self.moved.notify_waiters();
        }
    }

    /// Waits until the feed advances. The caller must create this future before it calls [`Self::distance`].
    pub(super) fn comes_further(&self) -> Notified<'_> {
        self.moved.notified()
    }

    pub(super) fn distance(&self, moment: Position) -> Distance {
        let kept = self.kept.lock();
        let Some(reached) = &kept.reached else { return Distance::TooFar };
        match &reached.token {
            _ if reached.complete >= moment => Distance::Reached,
            Some((token, newest)) if *newest == reached.newest => Distance::Behind(token.clone()),
            _ if is_far_behind(reached.complete.time, moment) => Distance::TooFar,
            _ => Distance::Reading,
        }
    }

    /// The counts at a moment that the feed has reached. `None` means that these counts are not kept, or that the changes since the moment
    /// are not all known.
    pub(super) fn at(&self, whose: &Whose, moment: Position) -> Option<Counts> {
        let kept = &mut *self.kept.lock();
        let reached = kept.reached.as_ref()?;
        kept.asked += 1;
        let cell = kept.cells.get_mut(&whose.subject())?.iter_mut().find(|cell| cell.whose == *whose)?;
        cell.asked = kept.asked;
        if reached.complete < moment.max(cell.kept.as_of) || moment < reached.recent_after {
            return None;
        }
        let mut counts = cell.kept.counts;
        for (_, counted) in kept.recent.iter().rev().take_while(|(position, _)| *position > moment) {
            whose.shift(counted).undo(&mut counts);
        }
        Some(counts)
    }

    pub(super) fn knows(&self, whose: &Whose) -> bool {
        let kept = self.kept.lock();
        kept.cells.get(&whose.subject()).is_some_and(|cells| cells.iter().any(|cell| cell.whose == *whose))
    }

    /// Keeps counts that were read at a moment, if all changes after the moment are remembered or will follow.
    pub(super) fn keep(&self, whose: Whose, counts: Counts, moment: Position) {
        let kept = &mut *self.kept.lock();
        if kept.reached.as_ref().is_none_or(|reached| reached.recent_after > moment) {
            return;
        }
        kept.asked += 1;
        let mut cell = Cell { kept: CountsAt { counts, as_of: moment }, asked: kept.asked, whose };
        // Earlier changes are in the counts already, and there may be many of them.
        let later = kept.recent.partition_point(|(position, _)| *position <= moment);
        for (position, counted) in kept.recent.range(later..) {
            cell.kept.shift(*position, cell.whose.shift(counted));
        }
        let cells = kept.cells.entry(cell.whose.subject()).or_default();
        match cells.iter_mut().find(|other| other.whose == cell.whose) {
            Some(other) => *other = cell,
            None => {
                cells.push(cell);
                kept.number += 1;
            }
        }
        if kept.number > MOST_CELLS {
            kept.forget_some();
        }
    }
}

impl Kept {
    /// Evicts a quarter of the cells, the least recently used ones.
    fn forget_some(&mut self) {
        let mut asked: Vec<u64> = self.cells.values().flatten().map(|cell| cell.asked).collect();
        let (_, limit, _) = asked.select_nth_unstable(MOST_CELLS / 4);
        let limit = *limit;
        self.cells.retain(|_, cells| {
            cells.retain(|cell| cell.asked > limit);
            !cells.is_empty()
        });
        self.number = self.cells.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests;
