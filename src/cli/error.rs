//! Why a command ended, and with which exit code.

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
    #[error("tokens are checked with a public key here: they are made by who holds the private one")]
    NoSecret,
    #[error("the gateway would not accept such a token: {0}")]
    UselessToken(auth::AuthError),
    #[error(transparent)]
    App(#[from] app::AppError),
    #[error("{0} can't be used: http://host:port or https://host is expected")]
    Url(&'static str),
    /// The gateway said no for good.
    #[error("{0}")]
    Refused(String),
    /// The gateway on this machine is not well, or not there.
    #[error("{0}")]
    Unwell(String),
    #[error("the output can't be written: {0}")]
    Output(io::Error),
    #[error("the process can't be set up: {0}")]
    Runtime(io::Error),
}

impl CliError {
    /// 2: what was asked for can't be done as it is configured; 1: it was tried and failed.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Url(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
