//! What a request meets before its sender is known: the page's origin, CORS, limits for clients without a token, capacity, memory,
//! and bodies.

mod body;
mod body_memory;
mod capacity;
mod cors;
mod error_response;
mod memory;
mod newcomers;
mod origin;

pub use body::{BodyError, whole};
pub use body_memory::{BodyMemory, Reservation};
pub use capacity::{Capacity, Slot};
pub use cors::{CorsRule, cors};
pub use error_response::error_response;
pub use memory::MemoryLimit;
pub use newcomers::{Evict, Newcomer, Newcomers, bytes_with_a_token, head_bytes};
pub use origin::{OriginRule, PeerIp, check_origin};
