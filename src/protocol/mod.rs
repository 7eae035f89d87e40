//! The Socket.IO wire protocol: frames, requests of clients, events of the server, and refusals. This module does no I/O.

mod client_event;
pub mod emitted;
mod frame;
mod packet;
mod refusal;

pub use client_event::{ClientEvent, ClientEventName, Resync};
pub use frame::{Frame, FrameError, ack, connect_error, connected, event, event_with};
pub use packet::Packet;
pub use refusal::{Code, Refusal};
