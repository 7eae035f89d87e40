//! What changed: the store's own log (a MongoDB change stream, or the embedded store's) as [`Change`]s with
//! positions, and what each change means to clients.

mod change;
mod counted;
mod position;
mod translate;

pub use change::{Change, FeedItem, GapReason, TimelineChange};
pub use counted::{Counted, CountsAt, Shift};
pub use position::{NotAPosition, Position};
pub use translate::{Event, Step, translate};
