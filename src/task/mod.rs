//! The domain: what a task is, which part of it a client may see, and which users may see it.
//!
//! This module does no I/O and uses no other module of this crate. Only [`Timestamp::now`] reads the clock.

mod counts;
mod document;
mod field;
mod ids;
mod patch;
mod status;
mod time;
mod timeline;
mod view;
mod visibility;
mod written_time;

pub use counts::Counts;
pub use document::{DefaultOrg, DocumentError, Fields, FullTask, Task};
pub use field::Field;
pub use ids::{OrgId, TaskId, UserId};
pub use patch::{Answers, Assigned, NewEntry, NewTask, PatchError, TaskPatch, Writes};
pub use status::{Status, StatusClass};
pub use time::{ClockReading, MILLIS_THRESHOLD, Timestamp};
pub use timeline::{TimelineEntry, Window};
pub use view::{FullView, Summary};
pub use visibility::{Access, NamedOrg, Viewer};
pub use written_time::TIME_TEXT;
