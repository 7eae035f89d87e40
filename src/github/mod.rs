//! GitHub's webhooks: checks the signature of a delivery, finds its task, and computes what the delivery changes.
//!
//! This module does no I/O. A store first completes the delivery with the facts that earlier deliveries contained
//! ([`Delivery::missing_keys`], [`Delivery::new_facts`], [`Delivery::with_known_facts`]). It then calls [`Search::choose`] to select the
//! task and [`Delivery::writes`] to learn what to write, and writes the changes and the mark of the delivery together.

mod check;
mod delivery;
mod effect;
mod entry;
mod event;
mod facts;
mod lookup;
mod payload;
mod pull_request;
mod reference;
mod repository;
mod repository_context;
mod search;
mod signature;
mod source;

pub use delivery::{Delivery, DeliveryId, EventName, Received, UnusableDelivery};
pub use facts::{Fact, FactRecord, KnownFacts};
pub use lookup::{Lookup, lookups};
pub use repository::Repository;
pub use search::{Criterion, Search, is_open};
pub use signature::is_signed;
pub use source::HEAD_DAYS;

#[cfg(test)]
mod identity_tests;
#[cfg(test)]
mod tests;
