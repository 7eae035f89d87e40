//! Live entities: what is running right now, derived from events.
//!
//! A schema file says in [`Rule`]s how an event changes entities. [`LiveEntities`] applies them. Each audience has its own
//! copy of an entity, and a viewer sees the copies of its audiences merged, as an [`Entity`].

mod checkpoint;
mod entity;
mod expiry;
mod fold;
mod key;
mod merged;
mod rule;
#[cfg(test)]
mod tests;
mod view;

pub use checkpoint::CheckpointError;
pub use fold::{LiveChange, LiveEntities};
pub use key::EntityKey;
pub use merged::Entity;
pub use rule::{Rule, Starts};
