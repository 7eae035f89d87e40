//! The members of one room, each with its mark. Most rooms have one member: a task that one user watches, or the dashboard of a
//! user with one connection. Such a room needs no map.

use super::{PeerId, kind::Mark, peer::PeerMap};

#[derive(Debug, Default)]
pub(super) enum Members {
    #[default]
    Nobody,
    One(PeerId, Mark),
    Many(Box<PeerMap<Mark>>),
}

impl Members {
    /// Returns whether the client was no member before. A member gets the new mark.
    pub fn insert(&mut self, id: PeerId, mark: Mark) -> bool {
        match self {
            Self::Many(marks) => marks.insert(id, mark).is_none(),
            Self::One(only, before) if *only != id => {
                let mut marks = PeerMap::default();
                marks.insert(*only, *before);
                marks.insert(id, mark);
                *self = Self::Many(Box::new(marks));
                true
            }
            Self::One(_, before) => {
                *before = mark;
                false
            }
            Self::Nobody => {
                *self = Self::One(id, mark);
                true
            }
        }
    }

    /// Returns whether the client was a member.
    pub fn remove(&mut self, id: PeerId) -> bool {
        match self {
            Self::Many(marks) => {
                let was_member = marks.remove(&id).is_some();
                let mut left = marks.iter();
                if let (Some((only, mark)), None) = (left.next(), left.next()) {
                    *self = Self::One(*only, *mark);
                }
                was_member
            }
            Self::One(only, _) if *only == id => {
                *self = Self::Nobody;
                true
            }
            Self::One(..) | Self::Nobody => false,
        }
    }

    pub fn get(&self, id: PeerId) -> Option<&Mark> {
        match self {
            Self::Many(marks) => marks.get(&id),
            Self::One(only, mark) => (*only == id).then_some(mark),
            Self::Nobody => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Mark)> {
        let (one, many) = match self {
            Self::Many(marks) => (None, Some(marks.iter())),
            Self::One(only, mark) => (Some((*only, mark)), None),
            Self::Nobody => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(id, mark)| (*id, mark)))
    }

    pub fn ids(&self) -> impl Iterator<Item = PeerId> {
        self.iter().map(|(id, _)| id)
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::feed::Position;

    proptest! {
        #[test]
        fn the_members_are_those_of_a_map(ops in prop::collection::vec((any::<bool>(), 0..4u64, 1..9u64), 0..40)) {
            let mut members = Members::default();
            let mut map: BTreeMap<PeerId, Position> = BTreeMap::new();
            for (enters, id, time) in ops {
                let (id, at) = (PeerId(id), Position::end_of(time));
                if enters {
                    prop_assert_eq!(members.insert(id, Mark::of_state(at)), map.insert(id, at).is_none());
                } else {
                    prop_assert_eq!(members.remove(id), map.remove(&id).is_some());
                }
                let mut found: Vec<_> = members.iter().map(|(id, mark)| (id, mark.at)).collect();
                found.sort_unstable();
                prop_assert_eq!(found, map.clone().into_iter().collect::<Vec<_>>());
                for id in (0..4).map(PeerId) {
                    prop_assert_eq!(members.get(id).map(|mark| mark.at), map.get(&id).copied());
                }
                prop_assert_eq!(members.is_empty(), map.is_empty());
                prop_assert_eq!(matches!(members, Members::Many(_)), map.len() > 1, "a map for a single member");
            }
        }
    }
}
