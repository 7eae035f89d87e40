//! What an operator decides about the Socket.IO edge.

use std::time::Duration;

/// What `dashboard:state` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DashboardShape {
    /// An array of summaries: the existing client does `setTasks(tasks)` with it.
    Array,
    /// `{tasks, counts, eventId}`.
    Object,
}

#[derive(Clone, Debug)]
pub struct GatewaySettings {
    pub websocket: bool,
    pub dashboard: bool,
    pub task_detail: bool,
    pub dashboard_limit: usize,
    pub dashboard_shape: DashboardShape,
    /// Per user.
    pub joins_per_second: u32,
    pub max_connections_per_user: usize,
    /// That the client asked for.
    pub max_rooms_per_socket: usize,
    pub max_message_bytes: usize,
    /// Packets.
    pub send_queue: usize,
    pub slow_client_timeout: Duration,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}
