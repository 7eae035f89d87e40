//! The Socket.IO wire contract, pure: frames, what clients ask, what they are told, refusals.

mod client_event;
pub mod emitted;
mod frame;
mod packet;
mod refusal;

pub use client_event::{ClientEvent, Resync};
pub use frame::{Frame, FrameError, ack, connect_error, connected, event, event_with};
pub use packet::Packet;
pub use refusal::{Code, Refusal};
