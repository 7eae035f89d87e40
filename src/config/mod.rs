//! The operator's settings. One table defines the flags, `--help`, and the names that are read from the environment and
//! from `.env`. One file per section parses its settings and validates them.
//!
//! All invalid settings are reported at once. A report contains the name and the expected value, never the given value.

mod activity;
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

pub use activity::ActivityConfig;
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
pub use server::{ServerConfig, SocketIoTransport};
pub use setting::{Group, Setting};
pub use sources::Sources;
pub use store::{Backend, StoreConfig};
pub use table::GROUPS;
pub use webhook::WebhookConfig;

use reader::Reader;

/// All settings, validated.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub auth: AuthConfig,
    pub origins: Origins,
    pub webhook: WebhookConfig,
    pub features: FeaturesConfig,
    pub activity: ActivityConfig,
    pub limits: LimitsConfig,
    pub heartbeat: HeartbeatConfig,
    /// The heartbeat of the plain WebSocket.
    pub plain_heartbeat: HeartbeatConfig,
    pub logging: LoggingConfig,
    /// Problems with settings that are usable but not advisable. The log at startup and `taskcast check` show them.
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
        let mut store = StoreConfig::read(reader, &webhook);
        let auth = AuthConfig::read(reader, &server, &store);
        let features = FeaturesConfig::read(reader, &store);
        if let Backend::Mongo(mongo) = &mut store.backend {
            mongo.task_writes = features.task_api.writes();
        }
        Self {
            features,
            server,
            store,
            auth,
            origins: Origins::read(reader),
            webhook,
            activity: ActivityConfig::read(reader),
            limits: LimitsConfig::read(reader),
            heartbeat: HeartbeatConfig::read(reader),
            plain_heartbeat: HeartbeatConfig::read_plain(reader),
            logging: LoggingConfig::read(reader),
            warnings: reader.take_warnings(),
        }
    }

    /// Builds the verifier of tokens, and the signer if the secret is known.
    pub fn tokens(&self) -> Result<Tokens, DevSecretError> {
        self.auth.open(&self.store.default_org)
    }
}

impl ServerConfig {
    /// Reads only these settings. A command that only talks to a running gateway does not need the others to be valid.
    pub fn read_alone(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let server = Self::read(&mut reader);
        reader.finish(server)
    }
}

impl LoggingConfig {
    /// Reads only these settings, like [`ServerConfig::read_alone`].
    pub fn read_alone(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let logging = Self::read(&mut reader);
        reader.finish(logging)
    }
}

#[cfg(test)]
mod tests;
