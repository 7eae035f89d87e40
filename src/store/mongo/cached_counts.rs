//! Caches counts in memory. They are read once from an index, and each change that the feed reads updates them.
//!
//! A dashboard is read at one moment, and the feed is a little before or after this moment. Once the feed has read all changes up to the
//! moment, the counts of the moment are the current counts without the later changes.

use std::{collections::VecDeque, time::Duration};

use mongodb::bson::Document;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use crate::{
    feed::{Change, CountChange, CountDelta, CountsAt, Position},
    shrinking_map::ShrinkingMap,
    task::{Counts, OrgId, UserId},
};

/// The maximum number of cells. Above it, the least recently used cells are evicted. A cell takes about 200 bytes.
const MAX_CELLS: usize = 20_000;
/// The maximum number of remembered changes. They are subtracted from current counts, and added to counts whose read took MongoDB a long
/// time.
const MAX_RECENT_CHANGES: usize = 16_384;
/// Changes are remembered for this time, because MongoDB can't read an earlier moment.
const RECENT_CHANGES_TTL: Duration = Duration::from_secs(300);
/// A feed that is this many seconds behind a moment is too far behind to wait for.
const FAR_BEHIND_SECONDS: u64 = 2;

/// The tasks that are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CountScope {
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

impl CountScope {
    fn subject(&self) -> Subject {
        match self {
            Self::Org(org) => Subject::Org(org.clone()),
            Self::Own(user, _) => Subject::User(user.clone()),
        }
    }

    fn delta(&self, change: &CountChange) -> CountDelta {
        match self {
            Self::Org(org) => change.public(org),
            Self::Own(user, org) => change.own(user, org.as_ref()),
        }
    }
}

/// The counts that this node caches, and the position up to which the feed has updated them.
#[derive(Debug, Default)]
pub(super) struct CachedCounts {
    state: Mutex<State>,
    /// Notifies waiting callers when the feed advances.
    advanced: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// `None` means that no feed reads the changes, or that some changes may have been missed.
    progress: Option<FeedProgress>,
    /// The changes that affected counts, the newest last.
    recent: VecDeque<(Position, CountChange)>,
    cells: ShrinkingMap<Subject, Vec<Cell>>,
    cell_count: usize,
    /// The number of requests so far. It shows which cells were least recently used.
    request_count: u64,
}

#[derive(Debug)]
struct FeedProgress {
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
    scope: CountScope,
    counts: CountsAt,
    /// The number of the last request for this cell.
    request_number: u64,
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
    time + (FAR_BEHIND_SECONDS << 32) <= moment.time
}

impl CachedCounts {
    /// The feed will report every change after `position`.
    pub(super) fn opened(&self, position: Position) {
        let progress =
            FeedProgress { complete: position, newest: position, recent_after: position, token: None };
        *self.state.lock() = State { progress: Some(progress), ..State::default() };
    }

    /// Forgets all counts, because changes may have been missed.
    pub(super) fn lost(&self) {
        *self.state.lock() = State::default();
        self.advanced.notify_waiters();
    }

    pub(super) fn change(&self, change: &Change) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(progress) = &mut state.progress else { return };
        let position = change.position;
        progress.newest = position;
        progress.complete = progress.complete.max(position);
        let change = CountChange::of(change.before.as_ref(), change.after.as_ref());
        if !change.is_unchanged() {
            let orgs = change.orgs().cloned().map(Subject::Org);
            for subject in orgs.chain(change.creators().cloned().map(Subject::User)) {
                for cell in state.cells.get_mut(&subject).into_iter().flatten() {
                    cell.counts.shift(position, cell.scope.delta(&change));
                }
            }
            state.recent.push_back((position, change));
            let old = Position::before(position.time.saturating_sub(RECENT_CHANGES_TTL.as_secs() << 32));
            while state.recent.len() > MAX_RECENT_CHANGES
                || state.recent.front().is_some_and(|(at, _)| *at < old)
            {
                if let Some((at, _)) = state.recent.pop_front() {
                    progress.recent_after = at;
                }
            }
        }
        self.advanced.notify_waiters();
    }

    /// All changes up to `complete` have been read. After `token`, the stream had no more changes. `None` means that it had more changes.
    /// The last change may then be in the middle of a transaction.
    pub(super) fn reached(&self, complete: Position, token: Option<&Document>) {
        let mut state = self.state.lock();
        if let Some(progress) = &mut state.progress {
            progress.complete = progress.complete.max(complete);
            progress.token = token.map(|token| (token.clone(), progress.newest));
            self.advanced.notify_waiters();
        }
    }

    /// Another reader found no change between this token and this position.
    pub(super) fn nothing_since(&self, token: &Document, up_to: Position) {
        let mut state = self.state.lock();
        if let Some(progress) = &mut state.progress
            && progress
                .token
                .as_ref()
                .is_some_and(|(known, newest)| known == token && *newest == progress.newest)
        {
            progress.complete = progress.complete.max(up_to);
            self.advanced.notify_waiters();
        }
    }

    /// Waits until the feed advances. The caller must create this future before it calls [`Self::distance`].
    pub(super) fn next_advance(&self) -> Notified<'_> {
        self.advanced.notified()
    }

    pub(super) fn distance(&self, moment: Position) -> Distance {
        let state = self.state.lock();
        let Some(progress) = &state.progress else { return Distance::TooFar };
        match &progress.token {
            _ if progress.complete >= moment => Distance::Reached,
            Some((token, newest)) if *newest == progress.newest => Distance::Behind(token.clone()),
            _ if is_far_behind(progress.complete.time, moment) => Distance::TooFar,
            _ => Distance::Reading,
        }
    }

    /// The counts at a moment that the feed has reached. `None` means that these counts are not cached, or that the changes since the moment
    /// are not all known.
    pub(super) fn at(&self, scope: &CountScope, moment: Position) -> Option<Counts> {
        let state = &mut *self.state.lock();
        let progress = state.progress.as_ref()?;
        state.request_count += 1;
        let cell = state.cells.get_mut(&scope.subject())?.iter_mut().find(|cell| cell.scope == *scope)?;
        cell.request_number = state.request_count;
        if progress.complete < moment.max(cell.counts.as_of) || moment < progress.recent_after {
            return None;
        }
        let mut counts = cell.counts.counts;
        for (_, change) in state.recent.iter().rev().take_while(|(position, _)| *position > moment) {
            scope.delta(change).undo(&mut counts);
        }
        Some(counts)
    }

    pub(super) fn knows(&self, scope: &CountScope) -> bool {
        let state = self.state.lock();
        state.cells.get(&scope.subject()).is_some_and(|cells| cells.iter().any(|cell| cell.scope == *scope))
    }

    /// Caches counts that were read at a moment, if all changes after the moment are remembered or will follow.
    pub(super) fn keep(&self, scope: CountScope, counts: Counts, moment: Position) {
        let state = &mut *self.state.lock();
        if state.progress.as_ref().is_none_or(|progress| progress.recent_after > moment) {
            return;
        }
        state.request_count += 1;
        let mut cell =
            Cell { counts: CountsAt { counts, as_of: moment }, request_number: state.request_count, scope };
        // Earlier changes are in the counts already, and there may be many of them.
        let later = state.recent.partition_point(|(position, _)| *position <= moment);
        for (position, change) in state.recent.range(later..) {
            cell.counts.shift(*position, cell.scope.delta(change));
        }
        let cells = state.cells.entry(cell.scope.subject()).or_default();
        match cells.iter_mut().find(|other| other.scope == cell.scope) {
            Some(other) => *other = cell,
            None => {
                cells.push(cell);
                state.cell_count += 1;
            }
        }
        if state.cell_count > MAX_CELLS {
            state.evict();
        }
    }
}

impl State {
    /// Evicts a quarter of the cells, the least recently used ones.
    fn evict(&mut self) {
        let mut request_numbers: Vec<u64> =
            self.cells.values().flatten().map(|cell| cell.request_number).collect();
        let (_, limit, _) = request_numbers.select_nth_unstable(MAX_CELLS / 4);
        let limit = *limit;
        self.cells.retain(|_, cells| {
            cells.retain(|cell| cell.request_number > limit);
            !cells.is_empty()
        });
        self.cell_count = self.cells.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests;
