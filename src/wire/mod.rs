//! What crosses the wire, without framing: messages of the server with their positions, requests of clients, and refusals. Each transport encodes and
//! decodes them in its own dialect. This module does no I/O.

pub mod emitted;
mod message;
mod refusal;
mod request;
mod request_id;

pub use crate::position::{NotAPosition, Position};
pub use message::{Content, Dialect, ListFields, Message};
pub use refusal::{Code, Refusal};
pub use request::{ClientEvent, ClientEventName, Resync};
pub use request_id::RequestId;
