//! Integration tests: they run in one process with the crate, against real servers.

mod architecture;
mod cli;
mod cluster;
mod http;
mod mongo_bson_types;
mod mongo_counts;
mod mongo_deliveries;
mod mongo_feed;
mod mongo_forbidden;
mod mongo_keys;
mod mongo_lists;
mod mongo_server;
mod mongo_slow;
mod mongo_snapshot;
mod mongo_stream_failures;
mod mongo_timelines;
mod mongo_versions;
mod mongo_writes;
mod mongod;
mod operations;
mod oracle;
mod redis;
mod security;
mod store;
