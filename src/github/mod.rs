//! GitHub's webhooks: whether a delivery is genuine, which task it is about, and what it changes there.
//!
//! Pure: a store asks [`Search::choose`] which of its tasks is meant and [`Delivery::writes`] what to write, and
//! makes that write together with the delivery's mark.

mod delivery;
mod effect;
mod entry;
mod event;
mod payload;
mod pull_request;
mod reference;
mod search;
mod signature;

pub use delivery::{Delivery, DeliveryId, EVENTS, Received, UnusableDelivery, event_label};
pub use search::{Search, Way};
pub use signature::is_signed;

#[cfg(test)]
mod tests;
