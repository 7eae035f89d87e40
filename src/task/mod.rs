//! The domain: what a task is, which part of it a client may see, and which users may see it.
//!
//! This module does no I/O and uses no other module of this crate. Only [`Timestamp::now`] reads the clock.

mod client_view;
mod counts;
mod document;
mod field;
mod ids;
mod patch;
mod status;
mod time;
mod time_parser;
mod timeline;
mod visibility;

pub use client_view::{FullView, Summary};
pub use counts::Counts;
pub use document::{DefaultOrg, DocumentError, Fields, FullTask, Task};
pub use field::Field;
pub use ids::{OrgId, TaskId, UserId};
pub use patch::{Answers, Assigned, NewEntry, NewTask, PatchError, TaskPatch, Writes};
pub use status::{Status, StatusClass};
pub use time::{ClockReading, MILLIS_THRESHOLD, Timestamp};
pub use time_parser::TIME_TEXT;
pub use timeline::{Redacted, TimelineEntry, Window, redact_map};
pub use visibility::{Access, NamedOrg, Viewer};
