//! Where the gateway listens, and how it treats connections.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{Secret, TrustedProxies, reader::Reader};

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub host: IpAddr,
    /// 0 means any free port.
    pub port: u16,
    /// If set, `/metrics` and `/api/admin` are served only on this port.
    pub admin_port: Option<u16>,
    pub trusted_proxies: TrustedProxies,
    pub shutdown_grace: Duration,
    /// The gateway closes an HTTP connection that is idle for this long.
    pub keep_alive: Duration,
    pub transport: SocketIoTransport,
    /// `/metrics` requires this bearer token.
    pub metrics_token: Option<Secret>,
}

/// The implementation of Socket.IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketIoTransport {
    Native,
    Socketioxide,
}

impl ServerConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let host = reader.parse("HOST", "an IP address or localhost", parse_host);
        let port = reader.number("PORT", 0..=u16::MAX).unwrap_or_default();
        let admin_port = reader.number("ADMIN_PORT", 0..=u16::MAX);
        if admin_port == Some(port) && port != 0 {
            reader.problem("ADMIN_PORT", "must be another port than PORT");
        }
        Self {
            host: host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port,
            admin_port,
            trusted_proxies: reader
                .parse(
                    "TRUSTED_PROXIES",
                    "comma-separated IP addresses or networks, such as 10.0.0.0/8",
                    TrustedProxies::parse,
                )
                .unwrap_or_default(),
            shutdown_grace: reader.duration("SHUTDOWN_GRACE", Duration::ZERO..=Duration::from_secs(60 * 60)),
            keep_alive: reader
                .duration("HTTP_KEEP_ALIVE", Duration::from_millis(100)..=Duration::from_secs(60 * 60)),
            transport: reader
                .parse("SOCKETIO_TRANSPORT", TRANSPORTS, parse_transport)
                .unwrap_or(SocketIoTransport::Native),
            metrics_token: reader.parse("METRICS_TOKEN", "visible ASCII characters without spaces", |text| {
                text.bytes().all(|b| b.is_ascii_graphic()).then(|| Secret::new(text))
            }),
        }
    }

    /// The address at which a client on this machine reaches the gateway.
    pub fn local_address(&self, port: u16) -> std::net::SocketAddr {
        let host = match self.host {
            host if !host.is_unspecified() => host,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        (host, port).into()
    }
}

/// The values of `SOCKETIO_TRANSPORT` that this program accepts.
const TRANSPORTS: &str = if cfg!(feature = "socketioxide") {
    "native or socketioxide"
} else {
    "native (this program was built without the Cargo feature socketioxide)"
};

fn parse_transport(text: &str) -> Option<SocketIoTransport> {
    match text.to_ascii_lowercase().as_str() {
        "native" => Some(SocketIoTransport::Native),
        "socketioxide" if cfg!(feature = "socketioxide") => Some(SocketIoTransport::Socketioxide),
        _ => None,
    }
}

fn parse_host(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}
