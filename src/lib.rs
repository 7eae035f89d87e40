//! taskcast: a Socket.IO-compatible realtime gateway for tasks.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod fanout;
pub mod feed;
pub mod gateway;
pub mod http;
pub mod lifecycle;
pub mod protocol;
pub mod serve;
pub mod store;
pub mod task;
pub mod telemetry;
