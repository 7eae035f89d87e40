//! The route of Socket.IO: it checks a request, and finds the socket that the request is for.

use std::sync::Arc;

use axum::{Router, extract::Request, response::Response};
use http::Method;

use super::{
    SocketIo,
    polling::{EngineError, Opening},
    query::Query,
    socket::TransportType,
};
use crate::{
    address::ClientAddress,
    auth::bearer,
    transport::{
        Gate, TcpHandle,
        client::Client,
        gate::{BehindGate, Refused},
    },
};

/// The paths of Socket.IO. Metrics count all requests under the first one.
pub(in crate::transport) const PATHS: [&str; 3] = ["/socket.io", "/socket.io/", "/socket.io/{*rest}"];

/// The routes of Socket.IO, behind the gate.
pub fn routes(server: Arc<SocketIo>, gate: Gate) -> Router {
    gate.mount(&PATHS, PATHS[0], server)
}

impl BehindGate for Arc<SocketIo> {
    async fn answer(
        &self,
        gate: &Gate,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Refused> {
        let query = Query::of(request.uri()).map_err(|error| Box::new(error.response()))?;
        let unauthenticated_permit = match query.sid {
            Some(_) => None,
            None => Some(gate.admit(address)?),
        };
        let authenticated = query.sid.is_some_and(|sid| self.sockets.is_authenticated(sid));
        let (mut parts, body) = request.into_parts();
        let post_sid = query.sid.filter(|_| parts.method == Method::POST);
        let posting_socket = post_sid.and_then(|sid| self.sockets.get(sid));
        let guard =
            posting_socket.map(|socket| socket.own.posts.begin().ok_or_else(|| gate.overlapping_posts()));
        let _post_guard = guard.transpose()?;
        let max = self.read_limits.request_body(&parts.method, authenticated);
        let body = gate.read(body, max, authenticated).await?;
        if authenticated {
            tcp.trust();
        }
        let client = || Client::new(unauthenticated_permit, bearer(&parts.headers).map(str::to_owned));
        Ok(match (query.transport, &parts.method, query.sid) {
            (TransportType::Polling, &Method::GET, None) => self.open(client()),
            (TransportType::Polling, &Method::GET, Some(sid)) => self.poll(sid).await,
            (TransportType::Polling, &Method::POST, Some(sid)) => self.post(sid, &body),
            (TransportType::Websocket, &Method::GET, sid) => {
                let opening = sid.map_or_else(|| Opening::New(client()), Opening::Upgrade);
                self.begin_websocket(&mut parts, opening)
            }
            _ => EngineError::BadMethod.response(),
        })
    }
}
