//! The route of Socket.IO: it checks a request, and finds the socket that the request is for.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::Method;

use super::{SocketIo, client::Client, polling::EngineError, query::Query, socket::TransportType};
use crate::{
    address::ClientAddress,
    auth::bearer,
    transport::{Gate, TcpHandle, gate::Refused},
};

#[derive(Clone, Debug)]
struct Routes {
    server: Arc<SocketIo>,
    gate: Gate,
}

/// The routes of Socket.IO, behind the gate.
pub fn routes(server: Arc<SocketIo>, gate: Gate) -> Router {
    let paths = Router::new()
        .route("/socket.io", any(handle))
        .route("/socket.io/", any(handle))
        .route("/socket.io/{*rest}", any(handle))
        .with_state(Routes { server, gate: gate.clone() });
    gate.guard(paths)
}

async fn handle(
    State(routes): State<Routes>,
    Extension(address): Extension<ClientAddress>,
    Extension(tcp): Extension<TcpHandle>,
    request: Request,
) -> Response {
    routes.answer(request, address, tcp).await.unwrap_or_else(|refused| *refused)
}

impl Routes {
    async fn answer(
        &self,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Refused> {
        self.gate.check_query(request.uri())?;
        let query = Query::of(request.uri()).map_err(|error| Box::new(error.response()))?;
        let unauthenticated_permit = match query.sid {
            Some(_) => None,
            None => Some(self.gate.admit(address)?),
        };
        let server = &self.server;
        let authenticated = query.sid.is_some_and(|sid| server.sockets.is_authenticated(sid));
        let (mut parts, body) = request.into_parts();
        let post = query.sid.filter(|_| parts.method == Method::POST);
        let Ok(_post_guard) = post.map(|sid| server.sockets.begin_post(sid)).transpose() else {
            return Err(self.gate.overlapping_posts());
        };
        let max = match (&parts.method, authenticated) {
            (&Method::POST, true) => server.max_body_bytes(),
            (&Method::POST, false) => server.unauthenticated_bytes(),
            _ => 0,
        };
        let body = self.gate.read(body, max, authenticated).await?;
        if authenticated {
            tcp.trust();
        }
        let client = || Client::new(unauthenticated_permit, bearer(&parts.headers).map(str::to_owned));
        Ok(match (query.transport, &parts.method, query.sid) {
            (TransportType::Polling, &Method::GET, None) => server.open(client()),
            (TransportType::Polling, &Method::GET, Some(sid)) => server.poll(sid).await,
            (TransportType::Polling, &Method::POST, Some(sid)) => server.post(sid, &body),
            (TransportType::Websocket, &Method::GET, sid) => {
                let client = sid.map_or_else(|| Ok(client()), Err);
                server.begin_websocket(&mut parts, client)
            }
            _ => EngineError::BadMethod.response(),
        })
    }
}
