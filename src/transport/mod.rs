//! How clients connect. A transport turns the packets of its clients into requests of their sessions, and messages into packets.
//!
//! `tcp.rs` has the accepted connections and `gate.rs` the checks before a connection begins; all transports share them. `socket.rs` is
//! one client's connection with its queue (`outbox.rs`), and `websocket.rs` the task of its WebSocket; neither knows a protocol.
//!
//! [`socketio`] implements Engine.IO and Socket.IO, with one namespace and text packets (`docs/adr/0005-socket-io-by-hand.md`,
//! `docs/adr/0021-engine-io-by-hand.md`). [`socketioxide`] does the same with a library. [`json`] is a plain WebSocket at `/ws`.
//! `docs/transports.md` compares them.

mod admission;
mod client;
mod decoder;
mod disconnect_reason;
mod gate;
mod heartbeat;
pub mod json;
mod outbox;
mod polling_body;
mod read_limits;
mod socket;
pub mod socketio;
#[cfg(feature = "socketioxide")]
pub mod socketioxide;
mod tcp;
#[cfg(test)]
mod test_wire;
mod text_frame;
mod upgrade;
mod websocket;

pub use gate::Gate;
pub use tcp::{Tcp, TcpConnection, TcpHandle};

/// A transport's connections, as a drain sees them.
pub trait Server: std::fmt::Debug + Send + Sync {
    /// Closes every client's connection, after the messages that are queued. Each client reconnects by itself.
    fn close_all(&self);

    /// Shuts the connections of clients that have not read their last messages.
    fn shut_all(&self);

    /// Returns whether no connection is left.
    fn is_empty(&self) -> bool;
}
