//! Queries Redis for `taskcast check`.

use fred::{cmd, interfaces::ClientLike, types::InfoKind};
use tokio::time::timeout;

use super::{
    ClusterConfig, LinkError,
    link::{Connection, OPEN_TIMEOUT, is_recent, version},
};
use crate::task::{ClockReading, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisProbe {
    pub version: String,
    /// True if the version is new enough.
    pub is_recent: bool,
    /// The eviction policy of Redis. `None` means that Redis does not report it.
    pub eviction: Option<String>,
    /// `None` means that Redis does not report its time.
    pub clock: Option<ClockReading>,
}

pub async fn probe(config: &ClusterConfig) -> Result<RedisProbe, LinkError> {
    let probed = async {
        let client = config.client()?;
        let _connection = Connection::of(&client).await?;
        let version = version(&client).await?;
        let memory: String = client.info(Some(InfoKind::Memory)).await?;
        let eviction = memory.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        let eviction = eviction.map(|policy| policy.trim().to_owned());
        let before = Timestamp::now();
        let remote = client
            .custom::<Vec<String>, String>(cmd!("TIME"), Vec::new())
            .await
            .ok()
            .and_then(|time| moment(&time));
        let clock = remote.map(|remote| ClockReading { before, remote, after: Timestamp::now() });
        Ok(RedisProbe { is_recent: is_recent(&version), version, eviction, clock })
    };
    timeout(OPEN_TIMEOUT, probed).await.map_err(|_| LinkError::TimedOut)?
}

/// Converts the answer of `TIME`: seconds and microseconds.
fn moment(time: &[String]) -> Option<Timestamp> {
    let [seconds, micros] = time else { return None };
    let millis = seconds.parse::<i64>().ok()?.checked_mul(1000)? + micros.parse::<i64>().ok()? / 1000;
    Timestamp::from_millis(millis)
}
