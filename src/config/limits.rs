//! Limits for one address, one user, one connection and one answer.

use std::time::Duration;

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The handshakes of one address. 0 means no limit.
    pub handshake_rate_per_second: u32,
    /// `None` means no limit.
    pub max_unauthenticated_per_address: Option<usize>,
    pub join_rate_per_second: u32,
    pub max_connections_per_user: usize,
    pub max_rooms_per_socket: usize,
    pub max_message_bytes: usize,
    /// `None` means the container's limit.
    pub max_memory_bytes: Option<u64>,
    pub dashboard_limit: usize,
    /// Timeline entries in `task:state`.
    pub timeline_limit: usize,
    pub dashboard_shape: DashboardShape,
    /// In packets.
    pub send_queue: usize,
    pub slow_client_timeout: Duration,
}

/// The JSON shape of `dashboard:state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DashboardShape {
    #[default]
    Array,
    /// `{tasks: […]}`
    Object,
}

impl LimitsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let handshake_rate = reader.number("HANDSHAKE_RATE_PER_SECOND", 0..=1_000_000);
        let unauthenticated = reader.number("MAX_UNAUTHENTICATED_PER_ADDRESS", 0..=1_000_000);
        let mut count = |name, min, max| reader.number(name, min..=max).unwrap_or_default();
        Self {
            handshake_rate_per_second: handshake_rate.unwrap_or_default(),
            max_unauthenticated_per_address: unauthenticated.filter(|limit| *limit > 0),
            max_connections_per_user: count("MAX_CONNECTIONS_PER_USER", 1, 1_000_000),
            max_rooms_per_socket: count("MAX_ROOMS_PER_SOCKET", 1, 1_000_000),
            max_message_bytes: count("MAX_MESSAGE_BYTES", 1024, 16 * 1024 * 1024),
            dashboard_limit: count("DASHBOARD_LIMIT", 1, 10_000),
            timeline_limit: count("TIMELINE_LIMIT", 1, 100_000),
            // A replay uses up to a quarter of the queue.
            send_queue: count("SEND_QUEUE", 64, 1_048_576),
            // With less memory than the process needs at startup, it would refuse all connections.
            max_memory_bytes: reader.number("MAX_MEMORY_BYTES", 16 << 20..=1 << 50),
            join_rate_per_second: reader.number("JOIN_RATE_PER_SECOND", 1..=1_000_000).unwrap_or_default(),
            dashboard_shape: reader
                .choice(
                    "DASHBOARD_STATE_SHAPE",
                    &[("array", DashboardShape::Array), ("object", DashboardShape::Object)],
                )
                .unwrap_or_default(),
            slow_client_timeout: reader
                .duration("SLOW_CLIENT_TIMEOUT", Duration::from_millis(100)..=Duration::from_secs(60 * 60)),
        }
    }
}
