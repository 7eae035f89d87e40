//! The command line: its parser, and all commands except the gateway itself.

mod arguments;
mod check;
mod credentials;
mod dev_greeting;
mod emit;
mod error;
mod gateway_url;
mod health;
mod hook;
mod http_request;
mod stdin;
mod tail;
mod token;
mod websocket;

pub use arguments::{Command, Invocation, completions, parse};
pub use check::{CheckArguments, Finding, Level, check};
pub use credentials::LoginArguments;
pub use dev_greeting::dev_greeting;
pub use emit::{EmitArguments, emit};
pub use error::CliError;
pub use health::{HealthArguments, health};
pub use hook::{hook, is_hook};
pub use tail::{TailArguments, tail};
pub use token::{TokenArguments, token};
