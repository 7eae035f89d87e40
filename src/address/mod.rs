//! Who a request comes from as far as that can be told, and what each address has taken of something that there is
//! little of.

mod client;
mod forwarded;
mod shares;

pub use client::ClientAddress;
pub use forwarded::{Reached, reached};
pub use shares::{Share, Shares};
