//! The route `/ws`: it checks a request, and turns it into a WebSocket.

use std::{sync::Arc, time::Instant};

use axum::{Router, body::Body, extract::Request, response::Response};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use super::{
    PlainWebsocket,
    handler::JsonHandler,
    head_token::{chosen_subprotocol, head_token},
    socket::JsonSocket,
};
use crate::{
    address::ClientAddress,
    edge::error_response,
    transport::{
        Gate, TcpHandle,
        client::Client,
        gate::{BehindGate, Refused},
        upgrade::{accept_upgrade, handed_over},
        websocket::WebsocketTask,
    },
};

/// The route of plain WebSockets, behind the gate.
pub fn routes(server: Arc<PlainWebsocket>, gate: Gate) -> Router {
    gate.mount(&["/ws", "/ws/"], "/ws", server)
}

impl BehindGate for Arc<PlainWebsocket> {
    async fn answer(
        &self,
        gate: &Gate,
        request: Request,
        address: ClientAddress,
        _: TcpHandle,
    ) -> Result<Response, Refused> {
        if request.method() != Method::GET {
            return Err(method_not_allowed());
        }
        let unauthenticated_permit = gate.admit(address)?;
        let (mut parts, body) = request.into_parts();
        // A body would be read as the first frames.
        gate.read(body, 0, false).await?;
        let Some((upgrade, mut response)) = accept_upgrade(&mut parts) else {
            return Err(upgrade_required());
        };
        if let Some(subprotocol) = chosen_subprotocol(&parts.headers) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        let client = Client::new(Some(unauthenticated_permit), None);
        tokio::spawn(self.clone().serve(upgrade, client, head_token(&parts.headers)));
        Ok(response)
    }
}

impl PlainWebsocket {
    async fn serve(self: Arc<Self>, upgrade: OnUpgrade, client: Client, token: Option<String>) {
        let Some((tcp, rest)) = handed_over(upgrade).await else { return };
        let task = WebsocketTask::new(JsonHandler::new(self.clone(), token.is_some()), tcp, rest);
        let tcp = task.tcp();
        let socket = JsonSocket::websocket(self.new_connection(), self.send_queue(), client, tcp.shared());
        socket.client.limit_unauthenticated(&tcp.handle(), self.read_limits.unauthenticated);
        socket.client.set_tcp(tcp.handle());
        self.on_connect(&socket, token);
        // This gets a task of its own, because the future of the current task is larger.
        tokio::spawn(task.run(socket, Instant::now()));
    }
}

fn method_not_allowed() -> Refused {
    let mut response =
        error_response(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Only GET begins a WebSocket");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    Box::new(response)
}

fn upgrade_required() -> Refused {
    let mut response: Response<Body> = error_response(
        StatusCode::UPGRADE_REQUIRED,
        "upgrade_required",
        "This address is a WebSocket: connect with ws or wss, version 13",
    );
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    Box::new(response)
}
