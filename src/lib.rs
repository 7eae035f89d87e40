//! taskcast: a Socket.IO-compatible realtime gateway for tasks.

pub mod auth;
pub mod cli;
pub mod config;
pub mod feed;
pub mod store;
pub mod task;
pub mod telemetry;
