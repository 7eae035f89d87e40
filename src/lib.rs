//! taskcast: a Socket.IO-compatible realtime gateway for tasks.
//!
//! ```text
//!  writers ─► store ─► Change ─► translate ─► Step ─► fan-out ─► sockets ─► clients
//!               └─ snapshot that knows its position ──► handoff ◄── join, resync ─┘
//! ```
//!
//! The store is the only truth: nothing is emitted beside a write, every change comes back through
//! [`store::Store::follow`]. Every join is a snapshot and a replay of what came after it. In the order in which
//! data flows:
//!
//! - [`task`]: what a task is, what of it a client sees, who sees it, what may be written. Pure.
//! - [`protocol`]: Socket.IO packets, what clients ask, refusals. Pure.
//! - [`github`]: what a webhook's delivery means to a task. Pure.
//! - [`store`]: where tasks live, in MongoDB or embedded; snapshots, writes, and what was committed.
//! - [`feed`]: a committed change with its position, and the events that it means. Pure.
//! - [`fanout`]: rooms, the ring of recent events, the exact handoff, counts; what each socket is sent.
//! - [`auth`]: a token becomes an identity.
//! - [`address`]: whom a request comes from, and what each address has taken.
//! - [`cluster`]: what nodes tell each other about users, through Redis.
//! - [`gateway`]: the Socket.IO edge: connections, sessions, joins, limits.
//! - [`http`]: the HTTP edge: tasks, GitHub's webhooks, health, metrics, what administrators do.
//!
//! Around them: [`config`], [`cli`], [`telemetry`] with [`seldom`], [`metrics`], [`json`], [`cors`] and [`tables`]; [`serve`] accepts connections,
//! [`lifecycle`] ends them, [`app`] puts everything together. `fuzzing` is for fuzzers and
//! tests. `docs/architecture.md` says who may use whom and where a change goes.

pub mod address;
pub mod app;
pub mod auth;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod cors;
pub mod fanout;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gateway;
pub mod github;
pub mod http;
pub mod json;
pub mod lifecycle;
pub mod metrics;
pub mod protocol;
pub mod seldom;
pub mod serve;
pub mod store;
pub mod tables;
pub mod task;
pub mod telemetry;
