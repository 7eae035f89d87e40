//! What the operator decides. One table of settings gives the flags, `--help`, and what is read from the
//! environment and from `.env`; one file per section turns texts into types, with its own validation.
//!
//! All bad settings are reported at once, each by name with what is expected, never with its value.

mod auth;
mod dev_secret;
mod dotenv;
mod features;
mod heartbeat;
mod limits;
mod logging;
mod network;
mod origins;
mod problem;
mod reader;
mod secret;
mod server;
mod setting;
mod sources;
mod store;
mod table;
mod webhook;

pub use auth::{AuthConfig, KeySource, MIN_SECRET_BYTES, Tokens};
pub use dev_secret::DevSecretError;
pub use features::{FeaturesConfig, TaskApi};
pub use heartbeat::HeartbeatConfig;
pub use limits::{DashboardShape, LimitsConfig};
pub use logging::{LogFormat, LoggingConfig};
pub use network::{Network, TrustedProxies};
pub use origins::{Origin, Origins};
pub use problem::{ConfigError, Problem};
pub use secret::Secret;
pub use server::ServerConfig;
pub use setting::{Group, Setting};
pub use sources::Sources;
pub use store::{Backend, StoreConfig};
pub use table::GROUPS;
pub use webhook::WebhookConfig;

use reader::Reader;

/// Everything that the operator decides, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub auth: AuthConfig,
    pub origins: Origins,
    pub webhook: WebhookConfig,
    pub features: FeaturesConfig,
    pub limits: LimitsConfig,
    pub heartbeat: HeartbeatConfig,
    pub logging: LoggingConfig,
    /// Usable, but not advisable: for the log at startup and for `check`.
    pub warnings: Vec<String>,
}

impl Config {
    pub fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        for warning in sources.dotenv_warnings() {
            reader.warn(warning);
        }
        let config = Self::read_with(&mut reader);
        reader.finish(config)
    }

    fn read_with(reader: &mut Reader<'_>) -> Self {
        let server = ServerConfig::read(reader);
        let webhook = WebhookConfig::read(reader);
        let store = StoreConfig::read(reader, &webhook);
        let auth = AuthConfig::read(reader, &server, &store);
        Self {
            features: FeaturesConfig::read(reader, &store),
            server,
            store,
            auth,
            origins: Origins::read(reader),
            webhook,
            limits: LimitsConfig::read(reader),
            heartbeat: HeartbeatConfig::read(reader),
            logging: LoggingConfig::read(reader),
            warnings: reader.take_warnings(),
        }
    }

    /// What checks tokens, and what signs them where the secret is known.
    pub fn tokens(&self) -> Result<Tokens, DevSecretError> {
        self.auth.open(&self.store.default_org)
    }
}

impl ServerConfig {
    /// Of a machine that only talks to a gateway, where the other settings need not be right.
    pub fn read_alone(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let server = Self::read(&mut reader);
        reader.finish(server)
    }
}

impl LoggingConfig {
    /// Likewise.
    pub fn read_alone(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let logging = Self::read(&mut reader);
        reader.finish(logging)
    }
}

#[cfg(test)]
mod tests;
