//! One connection to Redis. No state outlives it: the next connection subscribes again, and the node sends everything
//! again.

use std::time::Duration;

use fred::{
    clients::Client,
    cmd,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, LuaInterface, PubsubInterface, SortedSetsInterface},
    prelude::EventInterface,
    types::{ConnectHandle, InfoKind, Message, Value},
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::timeout,
};

use crate::{
    auth::{REVOCATION_TTL, UnixTime},
    task::UserId,
};

use super::{
    ClusterConfig,
    lost::LOST_DASHBOARD_TTL,
    pubsub_message::PubSubMessage,
    scripts::Scripts,
    session_change::{Dashboard, SessionChange},
};

const MIN_MAJOR_VERSION: u32 = 7;
/// The timeout of opening a connection, all steps together. Most steps have a timeout of their own.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Redis drops the data of a user after this time if nobody renews it: the user's nodes died, or have no more data to
/// send.
const USER_TTL: Duration = Duration::from_secs(15 * 60);

/// Why a connection to Redis could not be opened, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("Redis {0} is too old: 7.0 or newer is needed")]
    TooOld(String),
    #[error("Redis refuses the user of REDIS_URL, the password, or a command that the user may not run: {0}")]
    Denied(String),
    #[error("the certificate of Redis is not trusted: {0}")]
    Untrusted(String),
    #[error("Redis: {0}")]
    Redis(Error),
    #[error("Redis does not answer")]
    TimedOut,
    #[error("Redis closed the connection")]
    Closed,
    #[error("Redis received no heartbeat of this node for too long, or forgot it")]
    LeaseExpired,
    #[error("a queue of messages to or from Redis was full")]
    QueueFull,
}

impl From<Error> for LinkError {
    fn from(error: Error) -> Self {
        let details = error.details();
        if *error.kind() == ErrorKind::Auth || details.starts_with("NOPERM") {
            return Self::Denied(details.to_owned());
        }
        // An error that rustls finds comes only as the text of an I/O error.
        match details.split_once("InvalidCertificate(") {
            Some((_, why)) => Self::Untrusted(why.strip_suffix(") }").unwrap_or(why).to_owned()),
            None => Self::Redis(error),
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub commands: Commands,
    messages: broadcast::Receiver<Message>,
    connection: Connection,
}

/// The calls to Redis.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    client: Client,
    scripts: Scripts,
    prefix: String,
    /// Identifies this connection of this node. Each connection has a new lease, and the data of the earlier lease no
    /// longer counts.
    lease: String,
}

impl Link {
    /// Connects, subscribes, and begins a lease that replaces the lease `before`.
    pub async fn open(config: &ClusterConfig, before: Option<&str>) -> Result<Self, LinkError> {
        timeout(OPEN_TIMEOUT, Self::begin(config, before)).await.map_err(|_| LinkError::TimedOut)?
    }

    async fn begin(config: &ClusterConfig, before: Option<&str>) -> Result<Self, LinkError> {
        let client = config.client()?;
        let connection = Connection::of(&client).await?;
        let version = version(&client).await?;
        if !is_recent(&version) {
            return Err(LinkError::TooOld(version));
        }
        let commands = Commands {
            scripts: Scripts::load(&client).await?,
            client,
            prefix: config.prefix.clone(),
            lease: uuid::Uuid::new_v4().simple().to_string(),
        };
        let messages = commands.client.message_rx();
        commands.client.subscribe(vec![commands.broadcast_channel(), commands.own_channel()]).await?;
        let replaced = before.unwrap_or_default().to_owned();
        let arguments = vec![commands.lease.clone(), replaced];
        let () = commands.run(&commands.scripts.begin, commands.common_keys(), arguments).await?;
        Ok(Self { commands, messages, connection })
    }

    /// Waits for the next message. The error says why the connection ended.
    pub async fn next_message(&mut self) -> Result<Message, LinkError> {
        tokio::select! {
            message = self.messages.recv() => message.map_err(|error| match error {
                RecvError::Lagged(_) => LinkError::QueueFull,
                RecvError::Closed => LinkError::Closed,
            }),
            ended = &mut self.connection.0 => Err(match ended {
                Ok(Err(error)) => error.into(),
                _ => LinkError::Closed,
            }),
        }
    }
}

/// The task that serves a connection. The task owns the connection, so aborting the task closes it, whatever the task
/// waits for.
#[derive(Debug)]
pub(super) struct Connection(ConnectHandle);

impl Connection {
    pub async fn of(client: &Client) -> Result<Self, LinkError> {
        let mut connection = Self(client.connect());
        let connected = tokio::select! {
            connected = client.wait_for_connect() => connected,
            // The connection may have failed before this function waits for it.
            ended = &mut connection.0 => return Err(match ended {
                Ok(Err(error)) => error.into(),
                _ => LinkError::Closed,
            }),
        };
        match connected {
            Ok(()) => Ok(connection),
            // This Redis does not know RESP3.
            Err(error) if error.details().contains("unknown command") => {
                Err(LinkError::TooOld("before 6".into()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Commands {
    pub fn lease(&self) -> &str {
        &self.lease
    }

    pub fn is_own_channel(&self, channel: &str) -> bool {
        channel == self.own_channel()
    }

    /// Sends the heartbeat and the report of this node. Returns the reports of the live nodes.
    pub async fn heartbeat(&self, report: &str) -> Result<Vec<String>, LinkError> {
        let arguments = vec![self.lease.clone(), report.to_owned()];
        let nodes: Option<Vec<String>> = self.run(&self.scripts.beat, self.common_keys(), arguments).await?;
        nodes.ok_or(LinkError::LeaseExpired)
    }

    /// Sends the changes in this order.
    pub async fn send_changes(
        &self,
        changes: &[SessionChange],
        max_sessions: usize,
    ) -> Result<(), LinkError> {
        let pipeline = self.client.pipeline();
        for change in changes {
            let (script, keys, arguments) = self.script_call(change, max_sessions);
            let mut evalsha_arguments = vec![script.clone(), keys.len().to_string()];
            evalsha_arguments.extend(keys.into_iter().chain(arguments));
            let _: Value = pipeline.custom(cmd!("EVALSHA"), evalsha_arguments).await?;
        }
        for answer in pipeline.try_all::<Value>().await {
            match answer {
                // Another program has written a value of another type to this key. The other changes are still sent.
                Err(error) if error.details().starts_with("WRONGTYPE") => tracing::warn!(%error, "Redis"),
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    /// Returns true if a session of the user may have lost the dashboard recently, on any node.
    pub async fn lost_dashboard(&self, user: &UserId) -> Result<bool, LinkError> {
        let keys = vec![self.key("leases"), self.user_key("dashboards", user), self.key("began")];
        let lost: i64 = self.run(&self.scripts.lost, keys, vec![millis(LOST_DASHBOARD_TTL)]).await?;
        Ok(lost != 0)
    }

    /// Stores the disconnect for nodes that connect later, and publishes it to the connected nodes.
    pub async fn disconnect(&self, user: &UserId, at: UnixTime) -> Result<(), LinkError> {
        let message = PubSubMessage::Disconnect { user: user.to_string(), at: at.as_millis() };
        // A message is text and numbers, so this can't fail.
        let message = serde_json::to_string(&message).unwrap_or_default();
        let arguments = vec![
            user.to_string(),
            at.as_millis().to_string(),
            millis(REVOCATION_TTL),
            message,
            self.broadcast_channel(),
        ];
        let keys = vec![self.key("leases"), self.key("disconnected")];
        Ok(self.run(&self.scripts.revoked, keys, arguments).await?)
    }

    /// All disconnects that Redis knows: each user, and the time of the disconnect.
    pub async fn disconnects(&self) -> Result<Vec<(String, u64)>, LinkError> {
        let key = self.key("disconnected");
        let all: Vec<(String, f64)> = self.client.zrange(key, 0, -1, None, false, None, true).await?;
        Ok(all.into_iter().map(|(user, at)| (user, at as u64)).collect())
    }

    fn script_call(
        &self,
        change: &SessionChange,
        max_sessions: usize,
    ) -> (&String, Vec<String>, Vec<String>) {
        let mut arguments = vec![self.lease.clone()];
        let (script, name, user) = match change {
            SessionChange::Opened { user, sessions } => {
                arguments.extend([max_sessions.to_string(), millis(USER_TTL)]);
                for (session, since) in sessions {
                    arguments.extend([session.to_string(), millis(since.elapsed())]);
                }
                (&self.scripts.opened, "sessions", user)
            }
            SessionChange::Ended { user, session } => {
                arguments.push(session.to_string());
                (&self.scripts.ended, "sessions", user)
            }
            SessionChange::Dashboard { user, session, state } => {
                arguments.extend([session.to_string(), millis(USER_TTL)]);
                arguments.push(match state {
                    Dashboard::Entered => "entered".to_owned(),
                    Dashboard::Left => "left".to_owned(),
                    Dashboard::Lost(when) => millis(when.elapsed()),
                });
                (&self.scripts.dashboard, "dashboards", user)
            }
        };
        (script, vec![self.key("leases"), self.user_key(name, user)], arguments)
    }

    async fn run<R: fred::types::FromValue>(
        &self,
        script: &str,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> Result<R, Error> {
        self.client.evalsha(script, keys, arguments).await
    }

    fn common_keys(&self) -> Vec<String> {
        ["leases", "nodes", "began"].map(|name| self.key(name)).to_vec()
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn user_key(&self, name: &str, user: &UserId) -> String {
        format!("{}{name}:{user}", self.prefix)
    }

    fn broadcast_channel(&self) -> String {
        self.key("all")
    }

    /// The scripts build the same name.
    fn own_channel(&self) -> String {
        format!("{}:{}", self.key("leases"), self.lease)
    }
}

pub(super) async fn version(client: &Client) -> Result<String, Error> {
    let info: String = client.info(Some(InfoKind::Server)).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    version
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| Error::new(ErrorKind::Unknown, "INFO contains no version"))
}

pub(super) fn is_recent(version: &str) -> bool {
    version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major >= MIN_MAJOR_VERSION)
}

/// Formats a duration in milliseconds. Session times are sent as ages, so that the clocks of two machines need not agree; the time of a
/// disconnect is absolute.
fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_7_or_newer_is_recent() {
        assert!(is_recent("7.0.15") && is_recent("8.2") && is_recent("10.0.0"));
        assert!(!is_recent("6.2.14") && !is_recent("") && !is_recent("unknown"));
    }
}
