//! Socket.IO through the library [socketioxide](https://docs.rs/socketioxide): the same sessions, requests and rooms as those of the
//! native transport, on the library's server.
//!
//! [`attach`] adds the task rooms to a namespace of an application that has its own socketioxide server. [`SocketIoxide`] is a whole
//! server, which the gateway uses with `SOCKETIO_TRANSPORT=socketioxide`. `docs/transports.md` says which promises each keeps.

mod admission;
mod attached;
mod client;
mod request;
mod routes;

pub use attached::{Attached, attach};
pub use routes::{SocketIoxide, routes};
