//! Determines the address that a request comes from, and limits how much of a scarce resource each address may hold.

mod client;
mod forwarded;
mod quotas;

pub use client::ClientAddress;
pub use forwarded::{ForwardedOrigin, forwarded_origin};
pub use quotas::{QuotaPermit, Quotas};
