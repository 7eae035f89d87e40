//! The command line: its parser, and all commands except the gateway itself.

mod arguments;
mod check;
mod dev_greeting;
mod error;
mod gateway_url;
mod health;
mod http_request;
mod tail;
mod token;
mod websocket;

pub use arguments::{Command, Invocation, completions, parse};
pub use check::{CheckArguments, Finding, Level, check};
pub use dev_greeting::dev_greeting;
pub use error::CliError;
pub use health::{HealthArguments, health};
pub use tail::{TailArguments, tail};
pub use token::{TokenArguments, token};
