//! Fetches keys from a key server (RFC 7517): periodically, and when a token names a key that is not known.
//!
//! An attacker can invent key names in tokens. This module limits how many fetches such tokens cause, and how many of
//! them wait and for how long.

mod fetched;
mod key_server;
mod key_set;
#[cfg(test)]
mod tests;

pub use fetched::{FetchTimes, FetchedKeys};
pub use key_server::{FetchError, Fetched, KeyServer, KeySetUrl};
pub use key_set::{KeySet, KeySetError, UnusableKey};
