//! `taskcast health`: the health check for a container without a shell.

use http::Method;

use crate::config::{ServerConfig, Sources};

use super::{CliError, gateway_url::GatewayUrl, http_request::http_request};

#[derive(Clone, Copy, Debug)]
pub struct HealthArguments {
    /// `true` asks whether the gateway accepts clients. `false` asks whether the process is alive.
    pub ready: bool,
}

/// Asks the gateway directly, at the configured port of this machine, not through a proxy.
pub async fn health(arguments: HealthArguments, sources: &Sources) -> Result<String, CliError> {
    let server = ServerConfig::read_alone(sources)?;
    let gateway = GatewayUrl::local(server.local_address(server.port));
    let path = if arguments.ready { "/api/health" } else { "/api/health/live" };
    match http_request(&gateway, Method::GET, path, "", &[]).await {
        Ok(answer) if answer.status == 200 => Ok(format!("ok: {gateway}{path} answers 200")),
        Ok(answer) => Err(CliError::Unwell(format!("{gateway}{path} answers {}", answer.status))),
        Err(error) => Err(CliError::Unwell(format!("{gateway} does not answer: {error}"))),
    }
}
