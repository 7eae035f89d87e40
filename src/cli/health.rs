//! `taskcast health`: what a container without a shell asks its own gateway.

use crate::config::{ServerConfig, Sources};

use super::{CliError, ask::ask, place::Place};

#[derive(Clone, Copy, Debug)]
pub struct HealthArguments {
    /// Whether it wants clients, rather than whether it lives.
    pub ready: bool,
}

/// On the configured port of this machine; a proxy is not asked.
pub async fn health(arguments: HealthArguments, sources: &Sources) -> Result<String, CliError> {
    let server = ServerConfig::read_alone(sources)?;
    let place = Place::local(server.local_address(server.port));
    let path = if arguments.ready { "/api/health" } else { "/api/health/live" };
    match ask(&place, "GET", path, "", &[]).await {
        Ok(answer) if answer.status == 200 => Ok(format!("ok: {place}{path} answers 200")),
        Ok(answer) => Err(CliError::Unwell(format!("{place}{path} answers {}", answer.status))),
        Err(error) => Err(CliError::Unwell(format!("{place} does not answer: {error}"))),
    }
}
