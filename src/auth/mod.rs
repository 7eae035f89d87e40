//! Authentication: verifies a JWT and turns it into an [`Identity`]. Only this module uses jsonwebtoken and
//! hyper-util's HTTP client.
//!
//! [`TokenVerifier::verify`] takes the clock as a parameter and does not wait. [`TokenVerifier::admit`] also waits for
//! keys that have to be fetched first. A refused client receives only [`AuthError::code`]. The reason goes to the log,
//! and never contains any part of the token.

mod bearer;
mod claims;
mod identity;
mod jwks;
mod jws;
mod key;
mod keys;
mod revocations;
mod signer;
mod time;
mod unique_json;
mod verifier;

pub use bearer::{bearer, without_scheme};
pub use claims::{ClaimNames, user_id};
pub use identity::Identity;
pub use jwks::{FetchError, FetchTimes, FetchedKeys, KeyServer, KeySetUrl};
pub use key::{Key, KeyError};
pub use keys::Keys;
pub use revocations::{REVOCATION_TTL, Revocations};
pub use signer::{Grant, SignError, TokenSigner};
pub use time::UnixTime;
pub use verifier::{AuthError, DEFAULT_MAX_TOKEN_BYTES, TokenVerifier};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
