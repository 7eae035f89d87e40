//! GitHub's webhooks: whether a delivery is genuine, which task it is about, and what it changes there.
//!
//! Pure: a store asks [`Search::choose`] which of its tasks is meant and [`Delivery::writes`] what to write, and
//! makes that write together with the delivery's mark.

mod check;
mod delivery;
mod effect;
mod entry;
mod event;
mod known;
mod lookup;
mod payload;
mod place;
mod pull_request;
mod reference;
mod repository;
mod search;
mod signature;
mod source;

pub use delivery::{Delivery, DeliveryId, EVENTS, Received, UnusableDelivery, event_label};
pub use known::{Fact, Known, Lesson};
pub use lookup::{Lookup, lookups};
pub use repository::Repository;
pub use search::{Search, Way, is_open};
pub use signature::is_signed;
pub use source::HEAD_DAYS;

#[cfg(test)]
mod identity_tests;
#[cfg(test)]
mod tests;
