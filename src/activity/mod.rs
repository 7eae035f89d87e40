//! The domain of activity events: facts that happened, which orchestrators, daemons and coding agents report.
//!
//! A producer's JSON becomes a [`Report`], which the [`Registry`] checks against the schema of its type. A stored report is
//! an [`Event`] with a position. [`LiveEntities`] derives from events what is running right now. A [`Pattern`] says which
//! events a client wants, and an [`Audience`] who may see them.
//!
//! This module does no I/O and does not read the clock.

mod audience;
mod event;
mod event_type;
mod hook;
mod live;
mod pattern;
mod problem;
mod registry;
mod report;
mod same_json;

pub use audience::{Audience, Scope};
pub use event::{ClientForm, Event, Origin};
pub use event_type::{EventType, TypeError};
pub use hook::hook_reports;
pub use live::{CheckpointError, Entity, EntityKey, LiveChange, LiveEntities, Rule, Starts};
pub use pattern::{Pattern, PatternError, PatternSet, TooManyPatterns};
pub use problem::EventProblem;
pub use registry::{KnownType, Registry, SchemaError, TypeName, UnknownTypes};
pub use report::Report;
