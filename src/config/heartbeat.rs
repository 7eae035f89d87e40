//! Settings of the Engine.IO heartbeat.

use std::time::Duration;

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct HeartbeatConfig {
    pub interval: Duration,
    pub timeout: Duration,
}

impl HeartbeatConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let range = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
        Self {
            interval: reader.duration("PING_INTERVAL", range.clone()),
            timeout: reader.duration("PING_TIMEOUT", range),
        }
    }
}
