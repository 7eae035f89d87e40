//! The checks of a request before its sender is known: the page's origin, CORS, limits for clients without a token, capacity, memory,
//! and bodies.

mod body;
mod body_memory;
mod capacity;
mod cors;
mod error_response;
mod memory;
mod origin;
mod unauthenticated;

pub use body::{BodyError, read_body};
pub use body_memory::{BodyMemory, Reservation};
pub use capacity::{Capacity, Slot};
pub use cors::{CorsRule, cors};
pub use error_response::error_response;
pub use memory::MemoryLimit;
pub use origin::{OriginRule, PeerIp, check_origin};
pub use unauthenticated::{
    Evict, UnauthenticatedLimits, UnauthenticatedPermit, head_bytes, max_token_message_bytes,
};
