//! What `taskcast check` asks Redis.

use fred::{interfaces::ClientLike, types::InfoKind};
use tokio::time::timeout;

use super::{
    ClusterConfig, LinkError,
    link::{Connection, OPEN_WITHIN, is_recent, version},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisProbe {
    pub version: String,
    /// Whether that is new enough.
    pub is_recent: bool,
    /// What it does when its memory is full; None: it does not say.
    pub eviction: Option<String>,
}

pub async fn probe(config: &ClusterConfig) -> Result<RedisProbe, LinkError> {
    let probed = async {
        let client = config.client()?;
        let _connection = Connection::of(&client).await?;
        let version = version(&client).await?;
        let memory: String = client.info(Some(InfoKind::Memory)).await?;
        let eviction = memory.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        let eviction = eviction.map(|policy| policy.trim().to_owned());
        Ok(RedisProbe { is_recent: is_recent(&version), version, eviction })
    };
    timeout(OPEN_WITHIN, probed).await.map_err(|_| LinkError::Silent)?
}
