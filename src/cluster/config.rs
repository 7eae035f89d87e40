//! The address of Redis, and the prefix of this deployment's keys.

use std::fmt;

use fred::{
    prelude::{Builder, Client, Config},
    types::{RespVersion, config::Server},
};

use std::time::Duration;

/// The timeout of a connection attempt and of each command.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// The capacity of two queues: commands that wait to be written, and messages that wait to be read.
const QUEUE_CAPACITY: usize = 8192;

#[derive(Clone)]
pub struct ClusterConfig {
    url: String,
    /// The prefix of every key and channel.
    pub(super) prefix: String,
}

impl ClusterConfig {
    /// Several deployments can use one Redis if their databases or collections have different names. `None` means that
    /// `url` is not a valid Redis URL.
    pub fn new(url: &str, database: &str, collection: &str) -> Option<Self> {
        let plain = url.strip_prefix("redis://").or(url.strip_prefix("rediss://"))?;
        // The URL is parsed as one without TLS, because certificates are read only when they are needed.
        let parsed = Config::from_url_centralized(&format!("redis://{plain}")).ok()?;
        let Server { host, .. } = parsed.server.hosts().into_iter().next()?;
        // A database's name contains no dot, so the prefix is unambiguous.
        let prefix = format!("taskcast:{database}.{collection}:");
        (!host.is_empty()).then(|| Self { url: url.to_owned(), prefix })
    }

    /// A client that connects once and does not reconnect.
    pub(super) fn client(&self) -> Result<Client, fred::error::Error> {
        let mut config = Config::from_url_centralized(&self.url)?;
        config.version = RespVersion::RESP3;
        config.fail_fast = true;
        Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = COMMAND_TIMEOUT;
                connection.internal_command_timeout = COMMAND_TIMEOUT;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = QUEUE_CAPACITY;
                connection.tcp.nodelay = Some(true);
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = COMMAND_TIMEOUT;
                performance.broadcast_channel_capacity = QUEUE_CAPACITY;
            })
            .build()
    }
}

/// Omits the URL, because it may contain a password.
impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConfig").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_redis_urls_are_accepted() {
        let taken = |url| ClusterConfig::new(url, "app", "tasks").is_some();
        for url in [
            "redis://cache",
            "redis://cache:6380/1",
            "rediss://user:secret@cache",
            "redis://:secret@127.0.0.1:6379",
        ] {
            assert!(taken(url), "{url}");
        }
        for url in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis-cluster://cache",
            "redis://cache:port",
            "redis://cache/x",
        ] {
            assert!(!taken(url), "{url}");
        }
        let config = ClusterConfig::new("redis://:hunter2@cache", "app", "tasks").unwrap();
        assert_eq!(config.prefix, "taskcast:app.tasks:");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
