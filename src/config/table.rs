//! The table of all settings.

use super::{Group, Setting};

const SERVER: &[Setting] = &[
    Setting::new("HOST", "ADDRESS", "Address that HTTP, Socket.IO and /ws listen on").default_to("0.0.0.0"),
    Setting::new("PORT", "PORT", "Port of HTTP, Socket.IO and /ws; 0 selects a free one").default_to("3000"),
    Setting::new("ADMIN_PORT", "PORT", "Serve /metrics and /api/admin on this port only")
        .when_unset("served with everything else"),
    Setting::new(
        "TRUSTED_PROXIES",
        "NETWORKS",
        "Comma-separated addresses or networks whose X-Forwarded-For, -Proto and -Host, or Forwarded, are trusted",
    )
    .when_unset("no proxy is trusted"),
    Setting::new(
        "HTTP_KEEP_ALIVE",
        "DURATION",
        "Idle time after which an HTTP connection is closed; must be longer than that of the load balancer",
    )
    .default_to("75s"),
    Setting::new(
        "SOCKETIO_TRANSPORT",
        "native|socketioxide",
        "Implementation of Socket.IO: the gateway's own, or the library socketioxide",
    )
    .default_to("native"),
    Setting::new("SHUTDOWN_GRACE", "DURATION", "Time after SIGTERM for running requests and connected clients to end")
        .default_to("10s"),
];

const STORE: &[Setting] = &[
    Setting::new(
        "MONGODB_URI",
        "URI",
        "MongoDB that stores the tasks; its change stream is the source of all events",
    )
    .when_unset("the embedded store")
    .secret(),
    Setting::new("MONGODB_DB", "NAME", "Database of the tasks")
        .when_unset("the URI's database, else taskcast"),
    Setting::new("MONGODB_TASKS_COLLECTION", "NAME", "Collection of the tasks").default_to("tasks"),
    Setting::new(
        "MONGODB_IMAGES",
        "auto|require",
        "Whether changeStreamPreAndPostImages may be switched on (auto) or must be on already (require)",
    )
    .default_to("auto"),
    Setting::new("DATA_DIR", "FOLDER", "Folder of the embedded store and of the development secret")
        .default_to("./data"),
    Setting::new("DEFAULT_ORG", "NAME", "Organisation of tasks and tokens that name none").when_unset("none"),
    Setting::new(
        "REDIS_URL",
        "URL",
        "Redis through which several nodes behind a load balancer exchange data; needs MONGODB_URI",
    )
    .when_unset("one node")
    .secret(),
];

const TOKENS: &[Setting] = &[
    Setting::new("JWT_SECRET", "SECRET", "Tokens are HS256, checked with this secret; 32 bytes or more")
        .secret(),
    Setting::new(
        "JWT_PUBLIC_KEY",
        "PEM|@FILE",
        "Tokens are RS256, ES256 or EdDSA, checked with this public key; its kind decides which",
    ),
    Setting::new(
        "JWT_JWKS_URL",
        "URL",
        "Tokens are RS256, ES256 or EdDSA, checked with the keys that are fetched from this URL (JWKS)",
    ),
    Setting::new("JWT_ISSUER", "TEXT", "Required iss of a token").when_unset("not checked"),
    Setting::new("JWT_AUDIENCE", "TEXT", "Required aud of a token").when_unset("not checked"),
    Setting::new("JWT_USER_CLAIM", "CLAIM", "Claim with the user's id, or the path to it, such as user.id")
        .default_to("sub"),
    Setting::new("JWT_ORG_CLAIM", "CLAIM", "Claim with the organisation, or the path to it")
        .default_to("orgId"),
    Setting::new("JWT_NAME_CLAIM", "CLAIM", "Claim with the user's name, or the path to it")
        .default_to("name"),
    Setting::new("MAX_TOKEN_BYTES", "BYTES", "Longest token that is accepted; longer ones are refused")
        .default_to("8192"),
    Setting::new("TASKCAST_DEV", "BOOL", "Generate a secret, kept in DATA_DIR, when no key is configured")
        .when_unset("only on a loopback HOST"),
];

const ACCESS: &[Setting] = &[
    Setting::new(
        "WEBSOCKET_CORS_ORIGIN",
        "ORIGINS",
        "Comma-separated origins whose pages may connect (CORS and WebSocket)",
    )
    .default_to("http://localhost:5173")
    .alias("FRONTEND_URL"),
    Setting::new(
        "GITHUB_WEBHOOK_SECRET",
        "SECRETS",
        "Comma-separated secrets; a delivery that is signed with one of them is accepted",
    )
    .when_unset("the webhook answers 503")
    .secret(),
    Setting::new("METRICS_TOKEN", "TOKEN", "Bearer token that /metrics requires")
        .when_unset("/metrics is open")
        .secret(),
];

const FEATURES: &[Setting] = &[
    Setting::new("FEATURE_WEBSOCKET_ENABLED", "BOOL", "Socket.IO as a whole").default_to("true"),
    Setting::new("FEATURE_WEBSOCKET_DASHBOARD", "BOOL", "The dashboard over Socket.IO and /ws")
        .default_to("true"),
    Setting::new("FEATURE_WEBSOCKET_TASK_DETAIL", "BOOL", "Single tasks over Socket.IO and /ws")
        .default_to("true"),
    Setting::new("FEATURE_PLAIN_WEBSOCKET", "BOOL", "The plain WebSocket /ws").default_to("true"),
    Setting::new("FEATURE_TASK_API", "off|read|full", "What /api/tasks offers")
        .when_unset("full on the embedded store, read with MongoDB"),
    Setting::new("FEATURE_ACTIVITY", "BOOL", "Activity events; they need the embedded store")
        .default_to("true"),
];

const ACTIVITY: &[Setting] = &[
    Setting::new("ACTIVITY_RETENTION", "DURATION", "Time for which activity events are kept")
        .default_to("7d"),
    Setting::new(
        "ACTIVITY_HIGH_VOLUME_RETENTION",
        "DURATION",
        "Time for which events of high-volume types are kept, such as log.line",
    )
    .default_to("1h"),
    Setting::new(
        "ACTIVITY_SCHEMAS",
        "FOLDER",
        "Folder with your own schemas of event types; they may replace built-in ones",
    )
    .when_unset("built-in types only"),
    Setting::new(
        "ACTIVITY_UNKNOWN_TYPES",
        "reject|accept",
        "What happens to events of types without a schema",
    )
    .default_to("reject"),
    Setting::new(
        "ACTIVITY_RATE_PER_SECOND",
        "NUMBER",
        "Events that one user may report per second; ten seconds' worth at once",
    )
    .default_to("1000"),
];

const LIMITS: &[Setting] = &[
    Setting::new(
        "HANDSHAKE_RATE_PER_SECOND",
        "COUNT",
        "Connections of Socket.IO and /ws that one address may begin each second; further ones are answered 429. 0 means no limit",
    )
    .default_to("100"),
    Setting::new(
        "MAX_UNAUTHENTICATED_PER_ADDRESS",
        "COUNT",
        "Connections of one address that have not sent a token yet; further ones are refused. 0 means no limit",
    )
    .default_to("1000"),
    Setting::new("JOIN_RATE_PER_SECOND", "COUNT", "Joins and resyncs per user and second; more have to wait")
        .default_to("10"),
    Setting::new("MAX_CONNECTIONS_PER_USER", "COUNT", "Connections per user; with more, the user's oldest connection is closed")
        .default_to("50"),
    Setting::new("MAX_ROOMS_PER_SOCKET", "COUNT", "Rooms that one connection may join").default_to("200"),
    Setting::new(
        "MAX_MESSAGE_BYTES",
        "BYTES",
        "Longest message that a client may send, unless the message contains a token",
    )
    .default_to("65536"),
    Setting::new("MAX_MEMORY_BYTES", "BYTES", "Memory limit; while seven eighths of it are used, new connections are refused")
        .when_unset("the container's limit, if it has one"),
    Setting::new("DASHBOARD_LIMIT", "COUNT", "Maximum number of tasks in dashboard:state; the newest are sent").default_to("500"),
    Setting::new("TIMELINE_LIMIT", "COUNT", "Maximum number of timeline entries in task:state; the newest are sent").default_to("1000"),
    Setting::new("DASHBOARD_STATE_SHAPE", "array|object", "dashboard:state is [task] or {tasks: [task]}")
        .default_to("array"),
    Setting::new("SEND_QUEUE", "PACKETS", "Size of a client's send queue; if 8 times as many more packets wait, the client is disconnected")
        .default_to("4096"),
    Setting::new(
        "SLOW_CLIENT_TIMEOUT",
        "DURATION",
        "A client that reads less than 4 KiB of its waiting data within this time is disconnected",
    )
    .default_to("10s"),
    Setting::new("PING_INTERVAL", "DURATION", "How often a Socket.IO client is pinged").default_to("25s"),
    Setting::new("PING_TIMEOUT", "DURATION", "How long a Socket.IO client may take to answer a ping").default_to("20s"),
    Setting::new("PING_INTERVAL_WS", "DURATION", "How often a client of /ws is pinged; it has 10s to answer").default_to("30s"),
];

const LOGGING: &[Setting] = &[
    Setting::new("LOG_FORMAT", "pretty|json", "How a log line looks")
        .when_unset("pretty on a terminal, else json"),
    Setting::new("RUST_LOG", "FILTER", "What is logged, such as info,taskcast=debug").default_to("info"),
];

/// All settings, in the order in which they are shown.
pub const GROUPS: &[Group] = &[
    Group { title: "Server", settings: SERVER },
    Group { title: "Store", settings: STORE },
    Group { title: "Tokens", settings: TOKENS },
    Group { title: "Access", settings: ACCESS },
    Group { title: "Features", settings: FEATURES },
    Group { title: "Activity", settings: ACTIVITY },
    Group { title: "Limits", settings: LIMITS },
    Group { title: "Logging", settings: LOGGING },
];

pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}
