//! The Socket.IO edge: connections by JWT, one session per connected client with its requests in order, the
//! joins that the fan-out's handoff makes exact, limits, and the transport beneath.
//!
//! Engine.IO and Socket.IO, one namespace of text packets, are spoken here (`docs/adr/0005-socket-io-by-hand.md`,
//! `docs/adr/0021-engine-io-by-hand.md`).

mod admission;
mod body;
mod capacity;
mod edge;
mod engine;
mod expiry;
mod flights;
mod heartbeat;
mod join;
mod measure;
mod memory;
mod newcomers;
mod origin;
mod pace;
mod polled;
mod polling;
mod query;
mod rate;
mod request;
mod session;
mod sid;
mod snapshots;
mod socket;
mod sockets;
mod transport;
mod users;
mod websocket;

pub use capacity::{Capacity, Place};
pub use edge::Edge;
pub use engine::{Gateway, GatewaySettings};
pub use memory::MemoryLimit;
pub use newcomers::head_bytes;
pub use session::SocketPeer;
pub use transport::{Transport, TransportHandle, Wire};
