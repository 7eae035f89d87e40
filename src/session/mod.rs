//! Sessions of authenticated clients: each answers its requests in order, joins rooms through the fan-out's exact handoff, and ends
//! when its token expires.
//!
//! This module knows transports only as [`Connection`]s. A transport authenticates a token with [`Sessions::verify`], opens a session
//! with [`Sessions::open`] and [`Sessions::begin`], passes on requests with [`Sessions::receive`], and ends it with [`Sessions::end`].

mod clock;
mod connection;
mod expiry;
mod join;
mod measure;
mod peer;
mod registry;
mod requests;
#[allow(clippy::module_inception, reason = "one session, among the files about all of them")]
mod session;
mod sessions;
mod snapshots;
#[cfg(test)]
mod tests;
mod throughput;

pub use clock::{Clock, SystemClock};
pub use connection::{CloseReason, Connection};
pub use peer::SessionPeer;
pub use session::Session;
pub use sessions::{Incoming, SessionSettings, Sessions, log_refused};
