//! How clients connect. A transport turns the packets of its clients into requests of their sessions, and messages into packets.
//!
//! [`tcp`] has the accepted connections, which all transports share. [`socketio`] implements Engine.IO and Socket.IO, with one namespace
//! and text packets (`docs/adr/0005-socket-io-by-hand.md`, `docs/adr/0021-engine-io-by-hand.md`).

pub mod socketio;
mod tcp;

pub use tcp::{Tcp, TcpConnection, TcpHandle};
