//! What crosses the wire, without framing: messages of the server, requests of clients, and refusals. Each transport encodes and
//! decodes them in its own dialect. This module does no I/O.

pub mod emitted;
mod message;
mod refusal;
mod request;

pub use message::{Content, Dialect, Message};
pub use refusal::{Code, Refusal};
pub use request::{ClientEvent, ClientEventName, Resync};
