//! Who a client is: a JWT becomes an [`Identity`]. The only user of jsonwebtoken.
//!
//! The clock is a parameter throughout. What a refused client may learn is [`AuthError::code`]; the reason is for
//! the log, and never contains any part of the token.

mod claims;
mod identity;
mod keys;
mod revocations;
mod signer;
mod time;
mod verifier;

pub use claims::{ClaimNames, user_id};
pub use identity::Identity;
pub use keys::{KeyError, Keys};
pub use revocations::{REVOKED_FOR, Revocations};
pub use signer::{Grant, SignError, TokenSigner};
pub use time::UnixTime;
pub use verifier::{AuthError, MAX_TOKEN_BYTES, TokenVerifier};

#[cfg(test)]
mod tests;
