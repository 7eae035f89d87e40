//! The HTTP edge: health, the task API, and GitHub's webhooks.
//!
//! Every answer except that of `/metrics` is JSON. Errors have the form `{error: {code, message}}`. A task is sent only as one of the
//! two views of [`crate::task`], and its timeline as entries. The causes of internal errors appear only in the log.

mod activity;
mod admin;
mod body;
mod caller;
mod conditions;
mod error;
mod health;
mod metrics;
mod observe;
mod parameters;
mod router;
mod tasks;
mod timeline;
mod webhook;

pub use error::ApiError;
pub use health::{
    ClusterHealth, GatewayStatus, HealthReport, NodeHealth, RelayHealth, StoreHealth, WebsocketHealth,
};
pub use router::{HttpState, Routes, router};
pub use webhook::Webhook;
