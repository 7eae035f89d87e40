//! Checks a running gateway as clients reach it, through all proxies in front of it.

use futures_util::StreamExt;
use http::Method;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::Finding;
use crate::cli::{gateway_url::GatewayUrl, http_request::http_request, websocket::open_websocket};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A proxy that alternates between two nodes is found at the first try. With a proxy that chooses at random, all tries
/// reach the same node in only one of thousands of runs.
const ATTEMPTS: usize = 12;
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

pub(super) async fn check_gateway(gateway: &GatewayUrl) -> Vec<Finding> {
    let health = health(gateway).await;
    if health.level == super::Level::Fail {
        return vec![health];
    }
    vec![health, websocket(gateway).await, polling(gateway).await, public_metrics(gateway).await]
}

async fn health(gateway: &GatewayUrl) -> Finding {
    match http_request(gateway, Method::GET, "/api/health", "", &[]).await {
        Ok(answer) if answer.status == 200 && answer.body.contains("\"websocket\"") => {
            Finding::ok(format!("{gateway} leads to a gateway"))
        }
        Ok(answer) => Finding::fail(
            format!("{gateway}/api/health answers {}", answer.status),
            "let the proxy pass /api/ and /socket.io/ to taskcast, and give --url as clients have it",
        ),
        Err(error) => Finding::fail(
            format!("{gateway} can't be reached: {error}"),
            "check the URL, DNS, firewall and certificate; set SSL_CERT_FILE to a PEM file with your own authority's certificate",
        ),
    }
}

async fn websocket(gateway: &GatewayUrl) -> Finding {
    let opened = timeout(TIMEOUT, async {
        let mut socket = open_websocket(gateway).await.ok()?;
        match socket.next().await?.ok()? {
            Message::Text(text) => text.as_str().starts_with("0{").then_some(()),
            _ => None,
        }
    });
    match opened.await {
        Ok(Some(())) => Finding::ok("WebSockets get through"),
        _ => Finding::warn(
            "WebSockets don't get through: clients stay on polling, or don't connect at all",
            "let the proxy speak HTTP/1.1 to taskcast and pass Upgrade and Connection (see deploy/nginx and deploy/haproxy)",
        ),
    }
}

enum Polled {
    Found,
    /// The second request did not reach the node of the first one.
    Lost(u16),
    NotOpened(String),
}

async fn polling(gateway: &GatewayUrl) -> Finding {
    for _ in 0..ATTEMPTS {
        match poll(gateway).await {
            Polled::Found => {}
            Polled::Lost(status) => {
                return Finding::warn(
                    format!(
                        "polling is not sticky: the second request of a client was answered {status} by another node"
                    ),
                    "let the proxy send all requests of a client to one node, as deploy/nginx and deploy/haproxy do, or let \
                     clients connect with transports: ['websocket']",
                );
            }
            Polled::NotOpened(why) => {
                return Finding::warn(
                    format!("polling does not work: {why}"),
                    "let the proxy pass GET and POST of /socket.io/, with their query",
                );
            }
        }
    }
    Finding::ok("polling is sticky: the requests of a client reach the same node")
}

/// Opens a session and closes it with two requests. Each request has its own connection, as behind a proxy.
async fn poll(gateway: &GatewayUrl) -> Polled {
    let opened = match http_request(gateway, Method::GET, POLLING, "", &[]).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return Polled::NotOpened(format!("its first request is answered {}", answer.status)),
        Err(error) => return Polled::NotOpened(error.to_string()),
    };
    let sid = opened.body.split_once("\"sid\":\"").and_then(|(_, rest)| rest.split('"').next());
    let Some(sid) = sid else { return Polled::NotOpened("its first answer has no session".to_owned()) };
    match http_request(gateway, Method::POST, &format!("{POLLING}&sid={sid}"), "1", &opened.cookies).await {
        Ok(answer) if answer.status == 200 => Polled::Found,
        Ok(answer) => Polled::Lost(answer.status),
        Err(error) => Polled::NotOpened(error.to_string()),
    }
}

async fn public_metrics(gateway: &GatewayUrl) -> Finding {
    match http_request(gateway, Method::GET, "/metrics", "", &[]).await {
        Ok(answer) if answer.status == 200 && answer.body.contains("taskcast_") => Finding::warn(
            format!("anyone who can reach {gateway} can read /metrics"),
            "set ADMIN_PORT or METRICS_TOKEN, or let the proxy refuse /metrics and /api/admin",
        ),
        _ => Finding::ok("/metrics is not public"),
    }
}
