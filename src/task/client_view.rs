//! The allowlist of the fields that a client receives of a task: it receives one of these views, or an event with some of
//! the fields in [`Field`], which `feed/translate.rs` makes.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Access, Field, FullTask, Task, Writes};

/// The view without `events`, `questions` and `clarificationAnswers`, for lists.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a>(pub &'a Task);

/// The whole view. If older entries of the timeline are left out, `eventsOmitted` says how many.
#[derive(Clone, Copy, Debug)]
pub struct FullView<'a>(pub &'a FullTask);

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write(&mut map, self.0, Field::in_summary)?;
        map.end()
    }
}

impl Serialize for FullView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write(&mut map, &self.0.task, |_| true)?;
        map.serialize_entry("events", &self.0.timeline)?;
        if self.0.older > 0 {
            map.serialize_entry("eventsOmitted", &self.0.older)?;
        }
        map.end()
    }
}

/// This does not compile if one of these types implements `Serialize` itself, because that would bypass the allowlist.
const _: () = {
    trait HasNoOtherWay<Marker> {
        fn holds() {}
    }
    struct ByItself;
    impl<T: ?Sized> HasNoOtherWay<()> for T {}
    impl<T: ?Sized + Serialize> HasNoOtherWay<ByItself> for T {}
    // If two implementations fit, the compiler can't choose one.
    let _ = <Task as HasNoOtherWay<_>>::holds;
    let _ = <FullTask as HasNoOtherWay<_>>::holds;
    let _ = <Access as HasNoOtherWay<_>>::holds;
    let _ = <Writes as HasNoOtherWay<_>>::holds;
};

/// Absent fields are written as null, so that a client that merges a view into its copy also removes the values that the
/// task no longer has.
fn write<M: SerializeMap>(map: &mut M, task: &Task, wanted: fn(Field) -> bool) -> Result<(), M::Error> {
    map.serialize_entry("_id", &task.id)?;
    map.serialize_entry("taskId", &task.id)?;
    for field in Field::ALL.into_iter().filter(|field| wanted(*field)) {
        for name in field.sent_names() {
            map.serialize_entry(name, task.get(field))?;
        }
    }
    Ok(())
}
