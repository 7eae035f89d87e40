//! The URL of a gateway.

use std::{fmt, net::SocketAddr};

use http::Uri;

use super::CliError;
use crate::config::{ServerConfig, Sources};

/// `http://host:port` or `https://host`, optionally with a path before `/socket.io`.
pub(super) struct GatewayUrl {
    scheme: &'static str,
    rest: String,
}

impl GatewayUrl {
    /// The gateway at a URL that was given with `--url`, or the one on this machine.
    pub(super) fn of(url: Option<&str>, sources: &Sources) -> Result<Self, CliError> {
        match url {
            Some(url) => Self::parse(url).ok_or(CliError::Url("--url")),
            None => {
                let server = ServerConfig::read_alone(sources)?;
                Ok(Self::local(server.local_address(server.port)))
            }
        }
    }

    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.trim().parse().ok()?;
        let scheme = match uri.scheme_str()? {
            "http" | "ws" => "ws",
            "https" | "wss" => "wss",
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        // A URL with a password is refused, because the URL is printed.
        if authority.contains('@') || uri.query().is_some() {
            return None;
        }
        Some(Self { scheme, rest: format!("{authority}{}", uri.path().trim_end_matches('/')) })
    }

    pub(super) fn local(address: SocketAddr) -> Self {
        Self { scheme: "ws", rest: address.to_string() }
    }

    pub(super) fn websocket_url(&self) -> String {
        format!("{}://{}/socket.io/?EIO=4&transport=websocket", self.scheme, self.rest)
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == "wss" { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_translated_to_the_websocket_url_of_the_gateway() {
        for (url, websocket, shown) in [
            ("http://127.0.0.1:3000", "ws://127.0.0.1:3000/", "http://127.0.0.1:3000"),
            ("https://tasks.test/", "wss://tasks.test/", "https://tasks.test"),
            ("wss://tasks.test/live/", "wss://tasks.test/live/", "https://tasks.test/live"),
            ("ws://[::1]:1", "ws://[::1]:1/", "http://[::1]:1"),
        ] {
            let gateway = GatewayUrl::parse(url).expect(url);
            assert_eq!(gateway.websocket_url(), format!("{websocket}socket.io/?EIO=4&transport=websocket"));
            assert_eq!(gateway.to_string(), shown);
        }
        for url in
            ["", "127.0.0.1:3000", "localhost", "ftp://a", "http://", "http://u:p@a", "http://a?token=x"]
        {
            assert!(GatewayUrl::parse(url).is_none(), "{url}");
        }
    }
}
