//! `/ws`: a plain WebSocket whose messages are JSON objects, for clients without a library (`docs/websocket.md`, `docs/adr/0041-a-plain-websocket.md`).
//!
//! A request reaches `routes.rs`, which finds the token in its headers (`head_token.rs`). `server.rs` begins and ends connections, and
//! makes sessions from tokens. The task of the WebSocket (`transport/websocket.rs`) gives the messages of a client to `handler.rs`;
//! `messages.rs` passes requests on to the sessions. `frame.rs` reads and writes messages, and `close_code.rs` has the reasons of an end.

mod close_code;
mod frame;
mod handler;
mod head_token;
mod messages;
mod routes;
mod server;
mod socket;

pub use close_code::CloseCode;
pub use frame::{ClientMessage, JsonFrame, Malformed, encode_message};
pub use routes::routes;
pub use server::PlainWebsocket;
