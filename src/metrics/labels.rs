//! The values of labels that no other module defines.

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

/// Declares enums whose variants are the values of a label, in snake case.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
        #[strum(serialize_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }
    )+};
}

labels! {
    /// How an authenticated client is connected.
    Transport { Websocket, Polling, PlainWebsocket }

    /// Why a connection, or a request of a transport, was refused before a handshake.
    RejectReason {
        Capacity,
        Address,
        Idle,
        RateLimited,
        UnauthenticatedBytes,
        Overloaded,
        Draining,
        ForbiddenOrigin,
        TokenInQuery,
        PayloadTooLarge,
        OverlappingRequests,
        RequestTimeout,
    }

    /// The outcome of a Socket.IO `CONNECT` or of a token at `/ws`. For the main namespace of Socket.IO, a refused client receives this text.
    HandshakeOutcome { Accepted, Unauthorized, TokenExpired, Unavailable, FeatureDisabled, InvalidNamespace }

    /// Why a connection of a client ended.
    EndReason { TransportClose, MultiplePolling, Malformed, TransportError, HeartbeatTimeout, ClosedHere }

    /// Why the server cut a connection, so that the client reconnects and resyncs.
    CutReason {
        /// Its queue stayed full.
        Behind,
        /// It did not read for too long.
        Stalled,
        /// Its rooms could not be refreshed.
        NotRefreshed,
        /// Its user has too many connections.
        TooMany,
        /// It kept sending in spite of refusals.
        Flooding,
    }

    /// What became of a request that reports activity events.
    ReportOutcome { Stored, Invalid, Conflict, RateLimited, Unavailable }

    /// What a join or resync waits for.
    WaitCause { Rate, Store, Client }

    RoomKind { Task, Dashboard }

    /// How a join or resync ended.
    HandoffKind { State, Recovered, Gone, Reread }

    /// Whether a join read its snapshot itself.
    SnapshotRead { Own, Shared }

    /// The operations that [`crate::store::MeasuredStore`] measures.
    StoreOperation { Ping, Access, Task, Dashboard, List, Create, Clarify, Patch, Deliver }

    StoreFailure { Unavailable, Denied, Unusable, Document }

    /// The outcome of a fetch of keys.
    KeyFetch { Fetched, Unreachable, Status, Unusable }

    /// The outcome of a delivery of GitHub's webhook.
    WebhookOutcome {
        Written,
        Duplicate,
        Ignored,
        Ping,
        /// The request is not signed, or not with one of the configured secrets.
        Unauthorized,
        /// The request is too large, or it is signed but cannot be used.
        Unusable,
        /// The store is unavailable, or the request took too long.
        Unavailable,
        Failed,
        NotConfigured,
    }
}

/// The phase of the node's life, in `/api/health` and in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Phase {
    Starting,
    Ok,
    /// The store or Redis is unavailable, or no key to check tokens is known. The node still accepts clients, because a limited
    /// service is better than none.
    Degraded,
    Draining,
}
