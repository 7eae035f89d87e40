//! The effect of one change on counts of tasks, and counts that contain every change up to a position.

use super::Position;
use crate::task::{Access, Counts, OrgId, StatusClass, Task, UserId};

/// The effect of a change on counts. The task leaves the class in `from` for the viewers that saw it, and enters the class
/// in `to` for the viewers that see it now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountChange {
    pub from: Option<(Access, StatusClass)>,
    pub to: Option<(Access, StatusClass)>,
}

impl CountChange {
    pub fn of(before: Option<&Task>, after: Option<&Task>) -> Self {
        let class_of = |task: &Task| (task.access.clone(), task.status().class());
        Self { from: before.map(class_of), to: after.map(class_of) }
    }

    pub fn is_unchanged(&self) -> bool {
        self.from == self.to
    }

    /// The organisations whose members all see the task, before and after the change.
    pub fn orgs(&self) -> impl Iterator<Item = &OrgId> {
        without_duplicate(self.sides().map(|side| side.and_then(|(access, _)| access.public_org())))
    }

    /// The creators of the task, before and after the change.
    pub fn creators(&self) -> impl Iterator<Item = &UserId> {
        without_duplicate(self.sides().map(|side| side.and_then(|(access, _)| access.creator.as_ref())))
    }

    /// The change in the counts of the tasks that all members of an organisation see.
    pub fn public(&self, org: &OrgId) -> CountDelta {
        self.delta(|access| access.public_org() == Some(org))
    }

    /// The change in the counts of the tasks that this user created and that the other members of `org` don't see.
    pub fn own(&self, user: &UserId, org: Option<&OrgId>) -> CountDelta {
        self.delta(|access| access.is_only_its_creators(org) && access.creator.as_ref() == Some(user))
    }

    fn sides(&self) -> [Option<&(Access, StatusClass)>; 2] {
        [self.from.as_ref(), self.to.as_ref()]
    }

    fn delta(&self, is_seen: impl Fn(&Access) -> bool) -> CountDelta {
        let [from, to] =
            self.sides().map(|side| side.filter(|(access, _)| is_seen(access)).map(|(_, class)| *class));
        CountDelta { from, to }
    }
}

fn without_duplicate<T: PartialEq>([before, after]: [Option<&T>; 2]) -> impl Iterator<Item = &T> {
    before.into_iter().chain(after.filter(|_| before != after))
}

/// The effect of a change on one viewer's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountDelta {
    from: Option<StatusClass>,
    to: Option<StatusClass>,
}

impl CountDelta {
    /// Reverts the change in counts that contain it.
    pub fn undo(self, counts: &mut Counts) {
        Self { from: self.to, to: self.from }.apply(counts);
    }

    fn apply(self, counts: &mut Counts) {
        if let Some(class) = self.from {
            counts.remove_one(class);
        }
        if let Some(class) = self.to {
            counts.add(class, 1);
        }
    }
}

/// Counts that contain every change up to a position.
#[derive(Clone, Copy, Debug)]
pub struct CountsAt {
    pub counts: Counts,
    /// Changes up to here are counted already.
    pub as_of: Position,
}

impl CountsAt {
    /// Applies a change that is later than `as_of`. The counts contain the others already.
    pub fn shift(&mut self, position: Position, delta: CountDelta) {
        if position > self.as_of {
            delta.apply(&mut self.counts);
        }
    }
}
