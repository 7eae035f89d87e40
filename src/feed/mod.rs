//! The feed: the log of a store (a MongoDB change stream, or the log of the embedded store) as [`Change`]s with positions,
//! and the events that clients get for each change.

mod change;
mod count_change;
mod translate;

pub use crate::wire::{NotAPosition, Position};
pub use change::{Change, FeedItem, GapReason, TimelineChange};
pub use count_change::{CountChange, CountDelta, CountsAt};
pub use translate::{Event, Step, translate};
