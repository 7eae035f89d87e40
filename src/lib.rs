//! taskcast: a Socket.IO-compatible realtime gateway for tasks.

pub mod auth;
pub mod fanout;
pub mod feed;
pub mod http;
pub mod protocol;
pub mod store;
pub mod task;
