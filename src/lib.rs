//! taskcast: a Socket.IO-compatible realtime gateway for tasks.
//!
//! ```text
//!  writers ─► store ─► Change ─► translate ─► Step ─► fan-out ─► sessions ─► transports ─► clients
//!               └─ snapshot that knows its position ──► handoff ◄── join, resync ─┘
//! ```
//!
//! The store is the only source of truth. A write emits nothing itself: every change comes back through
//! [`store::Store::follow`]. Every join is a snapshot and a replay of the later events. The modules, in the order in
//! which data flows:
//!
//! - [`task`]: a task, its fields that clients see, who may see it, what may be written. Pure.
//! - [`activity`]: reported events, their types and schemas, and the live entities that follow from them. Pure.
//! - [`wire`]: messages, requests of clients, and refusals, without framing. Pure.
//! - [`github`]: what a webhook delivery means for a task. Pure.
//! - [`store`]: stores tasks in MongoDB or embedded: snapshots, writes, and committed changes. The embedded store has activity events, too.
//! - [`feed`]: a committed change with its position, and the events that follow from it. Pure.
//! - [`fanout`]: clients with their queues, and streams with rooms, recent events and the exact handoff.
//! - [`auth`]: verifies a token and returns an identity.
//! - [`address`]: the address that a request comes from, and the resources that each address holds.
//! - [`cluster`]: the data about users that nodes exchange through Redis.
//! - [`edge`]: what a request meets before its sender is known: origins, CORS, limits, bodies.
//! - [`session`]: what an authenticated client may do: requests in order, joins, rates, the end of its token.
//! - [`transport`]: how a client connects: Socket.IO, native or through a library, or the plain WebSocket `/ws`.
//! - [`reporting`]: accepts the activity events that producers report.
//! - [`http`]: the router, the task API, the activity API, GitHub's webhooks, health, metrics, administration.
//!
//! The other modules are [`config`], [`cli`], [`telemetry`] with [`rate_limited_log`], [`metrics`], [`json`], [`rate_limit`],
//! [`http_client`], [`shrinking_map`], [`backoff`] and [`position`]; [`serve`] accepts connections, [`lifecycle`] shuts the process down, and [`app`]
//! puts everything together. `fuzzing` is for fuzzers and tests. `docs/architecture.md` says which module may use which, and where a
//! change belongs.

pub mod activity;
pub mod address;
pub mod app;
pub mod auth;
pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod edge;
pub mod fanout;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod github;
pub mod http;
pub mod http_client;
pub mod json;
pub mod lifecycle;
pub mod metrics;
pub mod position;
pub mod rate_limit;
pub mod rate_limited_log;
pub mod reporting;
pub mod serve;
pub mod session;
pub mod shrinking_map;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod transport;
pub mod wire;

#[cfg(feature = "socketioxide")]
pub use transport::socketioxide;
