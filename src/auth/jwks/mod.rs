//! Fetches keys from a key server (RFC 7517): periodically, and when a token comes that no known key fits.
//!
//! An attacker can invent key ids in tokens. This module limits how many fetches such tokens cause, and how many of them
//! wait. Each caller limits how long it waits.

mod fetched;
mod key_server;
mod key_set;
#[cfg(test)]
mod tests;

pub use fetched::{FetchTimes, FetchedKeys};
pub use key_server::{FetchError, Fetched, KeyServer, KeySetUrl};
pub use key_set::{KeySet, KeySetError, UnusableKey};
