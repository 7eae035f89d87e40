//! Engine.IO and Socket.IO.
//!
//! A request reaches `routes.rs`. `polling.rs` opens a [`socket`] for it or finds its socket in `sockets.rs`; a WebSocket has a task
//! (`transport/websocket.rs`), which gives its messages to `websocket.rs`. Packets of clients go to `server.rs`, which finds tokens (`admission.rs`) and requests (`frame.rs`) in them, and
//! passes both on to the sessions. Messages of the server become packets (`frame.rs`, `packet.rs`) and wait in the socket's queue.

mod admission;
mod frame;
mod packet;
mod polling;
mod polling_state;
mod query;
mod routes;
mod server;
mod sid;
mod socket;
mod sockets;
mod websocket;

pub use frame::{Frame, FrameError, encode_message};
pub use packet::Packet;
pub use routes::routes;
pub use server::SocketIo;

/// The payload of a `CONNECT`.
#[derive(serde::Deserialize)]
pub(super) struct Auth {
    pub token: Option<String>,
}

#[cfg(feature = "socketioxide")]
pub(super) use self::{polling::EngineError, query::RawQuery, routes::PATHS, socket::TransportType};
