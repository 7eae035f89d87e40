//! Determines the address that a request comes from, and limits how much of a scarce resource each address may hold.

mod client;
mod forwarded;
mod shares;

pub use client::ClientAddress;
pub use forwarded::{Reached, reached};
pub use shares::{Share, Shares};
