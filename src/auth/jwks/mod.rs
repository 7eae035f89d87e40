//! Keys that are fetched (RFC 7517): from a key server, again and again, and by tokens that name one which is not known.
//!
//! Whoever makes up tokens makes up names of keys: what those cause is bounded here, in fetches, in time and in number.

mod fetched;
mod key_set;
mod server;
#[cfg(test)]
mod tests;

pub use fetched::{FetchTimes, FetchedKeys};
pub use key_set::{KeySet, KeySetError, UnusableKey};
pub use server::{FetchError, Fetched, KeyServer, KeySetUrl};
