//! Settings of the heartbeats: of Engine.IO, and of the plain WebSocket.

use std::{ops::RangeInclusive, time::Duration};

use super::reader::Reader;

/// How long a client of the plain WebSocket may take to answer a ping.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct HeartbeatConfig {
    pub interval: Duration,
    pub timeout: Duration,
}

impl HeartbeatConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            interval: reader.duration("PING_INTERVAL", range()),
            timeout: reader.duration("PING_TIMEOUT", range()),
        }
    }

    /// The heartbeat of the plain WebSocket.
    pub(super) fn read_plain(reader: &mut Reader<'_>) -> Self {
        Self { interval: reader.duration("PING_INTERVAL_WS", range()), timeout: PLAIN_TIMEOUT }
    }
}

fn range() -> RangeInclusive<Duration> {
    Duration::from_millis(100)..=Duration::from_secs(60 * 60)
}
