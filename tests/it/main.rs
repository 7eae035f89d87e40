//! In one process with the crate, against real servers.

mod http;
mod mongo_feed;
mod mongo_snapshot;
mod mongod;
mod store;
