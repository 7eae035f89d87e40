//! The errors that end a command, and their exit codes.

use std::{io, process::ExitCode};

use crate::{app, auth, config, telemetry};

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error(transparent)]
    DevSecret(#[from] config::DevSecretError),
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    #[error(transparent)]
    Sign(#[from] auth::SignError),
    #[error("tokens are checked with a public key, so taskcast can't sign one: ask their issuer for it")]
    NoSecret,
    #[error("the gateway would not accept such a token: {0}")]
    RejectedToken(auth::AuthError),
    #[error(transparent)]
    App(#[from] app::AppError),
    #[error("{0} can't be used: http://host:port or https://host is expected")]
    Url(&'static str),
    /// The gateway refused, and a retry would not help.
    #[error("{0}")]
    Refused(String),
    /// The gateway on this machine is unhealthy or does not answer.
    #[error("{0}")]
    Unwell(String),
    #[error("the output can't be written: {0}")]
    Output(io::Error),
    #[error("the process can't be set up: {0}")]
    Runtime(io::Error),
}

impl CliError {
    /// 2 means that the settings or the URL can't be used. 1 means that the command failed.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Url(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
