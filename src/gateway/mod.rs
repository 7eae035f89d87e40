//! The Socket.IO edge: authentication by JWT, one session per client that answers requests in order, exact joins through the
//! fan-out's handoff, limits, and the transports.
//!
//! This module implements Engine.IO and Socket.IO itself, with one namespace and text packets (`docs/adr/0005-socket-io-by-hand.md`,
//! `docs/adr/0021-engine-io-by-hand.md`).

mod admission;
mod body;
mod capacity;
mod edge;
mod engine;
mod expiry;
mod heartbeat;
mod join;
mod measure;
mod memory;
mod newcomers;
mod origin;
mod polled;
mod polling;
mod query;
mod rate;
mod request;
mod session;
mod sid;
mod single_flight;
mod snapshots;
mod socket;
mod sockets;
mod throughput;
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
