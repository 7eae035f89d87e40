//! Why a client's connection ends.

use crate::metrics::EndReason;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The client sent the packet `close`.
    ClientClose,
    /// The client closed it in another way, or the server closed it before the client had a session.
    TransportClose,
    /// Two polling requests waited for packets at once.
    MultiplePolling,
    Malformed,
    /// The connection failed, or the server aborted it.
    TransportError,
    HeartbeatTimeout,
    /// The server closed it. The client reconnects.
    ClosedHere,
}

impl DisconnectReason {
    /// Returns whether the client ended the connection. The client then no longer uses the id.
    pub fn is_by_client(self) -> bool {
        matches!(self, Self::ClientClose | Self::Malformed | Self::MultiplePolling)
    }

    /// Returns whether the client still gets the packets that are queued.
    pub fn is_orderly(self) -> bool {
        matches!(self, Self::ClientClose | Self::TransportClose | Self::Malformed | Self::ClosedHere)
    }
}

impl From<DisconnectReason> for EndReason {
    fn from(reason: DisconnectReason) -> Self {
        match reason {
            DisconnectReason::ClientClose | DisconnectReason::TransportClose => Self::TransportClose,
            DisconnectReason::MultiplePolling => Self::MultiplePolling,
            DisconnectReason::Malformed => Self::Malformed,
            DisconnectReason::TransportError => Self::TransportError,
            DisconnectReason::HeartbeatTimeout => Self::HeartbeatTimeout,
            DisconnectReason::ClosedHere => Self::ClosedHere,
        }
    }
}
