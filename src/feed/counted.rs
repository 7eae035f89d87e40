//! How one change moves counts, and counts that contain every change up to a position.

use super::Position;
use crate::task::{Access, Counts, OrgId, StatusClass, Task, UserId};

/// How a change moves the counts: out of one class for those who saw the task, into one for those who see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    pub from: Option<(Access, StatusClass)>,
    pub to: Option<(Access, StatusClass)>,
}

impl Counted {
    pub fn of(before: Option<&Task>, after: Option<&Task>) -> Self {
        let counted = |task: &Task| (task.access.clone(), task.status().class());
        Self { from: before.map(counted), to: after.map(counted) }
    }

    pub fn moves_nothing(&self) -> bool {
        self.from == self.to
    }

    /// The organisations that see the task as a whole, before and after.
    pub fn orgs(&self) -> impl Iterator<Item = &OrgId> {
        different(self.sides().map(|side| side.and_then(|(access, _)| access.public_org())))
    }

    /// Its creators, before and after.
    pub fn creators(&self) -> impl Iterator<Item = &UserId> {
        different(self.sides().map(|side| side.and_then(|(access, _)| access.creator.as_ref())))
    }

    /// In the counts of what everybody in an organisation sees.
    pub fn public(&self, org: &OrgId) -> Shift {
        self.shift(|access| access.public_org() == Some(org))
    }

    /// In the counts of what only its creator sees, of all that a viewer of an organisation sees.
    pub fn own(&self, user: &UserId, org: Option<&OrgId>) -> Shift {
        self.shift(|access| access.is_only_its_creators(org) && access.creator.as_ref() == Some(user))
    }

    fn sides(&self) -> [Option<&(Access, StatusClass)>; 2] {
        [self.from.as_ref(), self.to.as_ref()]
    }

    fn shift(&self, is_seen: impl Fn(&Access) -> bool) -> Shift {
        let [from, to] =
            self.sides().map(|side| side.filter(|(access, _)| is_seen(access)).map(|(_, class)| *class));
        Shift { from, to }
    }
}

fn different<T: PartialEq>([before, after]: [Option<&T>; 2]) -> impl Iterator<Item = &T> {
    before.into_iter().chain(after.filter(|_| before != after))
}

/// What a change does to one viewer's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    from: Option<StatusClass>,
    to: Option<StatusClass>,
}

impl Shift {
    /// Takes it back out of counts that contain it.
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
    /// A change that came later; others are in the counts.
    pub fn shift(&mut self, position: Position, shift: Shift) {
        if position > self.as_of {
            shift.apply(&mut self.counts);
        }
    }
}
