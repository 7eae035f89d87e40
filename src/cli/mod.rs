//! The command line: what was asked for, and the commands that are not the gateway itself.

mod arguments;
mod check;
mod dev;
mod error;
mod tail;
mod token;

pub use arguments::{Command, Invocation, parse};
pub use check::{Finding, Level, check};
pub use dev::dev_greeting;
pub use error::CliError;
pub use tail::{TailArguments, tail};
pub use token::{TokenArguments, token};
