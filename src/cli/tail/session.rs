//! One connection to the gateway, from opening the WebSocket to its end.

use std::{io::Write, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::{GatewayUrl, Outcome, Printer, Rooms, outcome::shown, packet::Packet, rooms::EventStatus};
use crate::cli::websocket::{WebSocket, open_websocket};

const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Session {
    socket: WebSocket,
    /// If the server is silent for longer, the connection counts as lost.
    idle_timeout: Duration,
}

impl Session {
    /// Connects to the gateway and to the namespace.
    pub(super) async fn open(gateway: &GatewayUrl, token: &str) -> Result<Self, Outcome> {
        match timeout(OPEN_TIMEOUT, Self::open_in_time(gateway, token)).await {
            Ok(result) => result,
            Err(_) => Err(Outcome::lost(format!("{gateway} does not answer"))),
        }
    }

    async fn open_in_time(gateway: &GatewayUrl, token: &str) -> Result<Self, Outcome> {
        let socket = open_websocket(gateway).await.map_err(|error| not_connected(gateway, error))?;
        let mut session = Self { socket, idle_timeout: OPEN_TIMEOUT };
        match session.next().await? {
            Packet::Open(idle_timeout) => session.idle_timeout = idle_timeout,
            _ => return Err(Outcome::Refused(format!("{gateway} is not a Socket.IO server"))),
        }
        session.send(format!("40{}", json!({ "token": token }))).await?;
        loop {
            match session.next().await? {
                Packet::Connected => return Ok(session),
                Packet::ConnectError(code) => return Err(Outcome::connect_error(&code)),
                _ => {}
            }
        }
    }

    /// Joins the rooms and prints events until the connection ends.
    pub(super) async fn run<W: Write>(&mut self, rooms: &mut Rooms, printer: &mut Printer<W>) -> Outcome {
        match self.follow(rooms, printer).await {
            Ok(never) => match never {},
            Err(outcome) => outcome,
        }
    }

    async fn follow<W: Write>(
        &mut self,
        rooms: &mut Rooms,
        printer: &mut Printer<W>,
    ) -> Result<std::convert::Infallible, Outcome> {
        for (id, (event, payload)) in rooms.requests().into_iter().enumerate() {
            self.send(format!("42{id}{}", json!([event, payload]))).await?;
        }
        loop {
            match self.next().await? {
                Packet::Event { name, payload }
                    if rooms.record_event(&name, &payload) == EventStatus::New =>
                {
                    printer.event(&name, &payload)?;
                }
                Packet::Ack { id, answer } => {
                    let request = usize::try_from(id).unwrap_or(usize::MAX);
                    answered(rooms, request, &answer, printer)?;
                }
                Packet::Disconnected => return Err(Outcome::lost("the gateway ended the session")),
                _ => {}
            }
        }
    }

    /// The next packet that is not part of the heartbeat.
    async fn next(&mut self) -> Result<Packet, Outcome> {
        loop {
            let message = timeout(self.idle_timeout, self.socket.next()).await;
            let message = message.map_err(|_| Outcome::lost("the gateway has stopped sending"))?;
            match message {
                Some(Ok(Message::Text(text))) => match Packet::parse(text.as_str()) {
                    Packet::Ping => self.send("3".to_owned()).await?,
                    Packet::Close => return Err(Outcome::lost("the gateway closed the connection")),
                    packet => return Ok(packet),
                },
                Some(Ok(Message::Close(_))) | None => {
                    return Err(Outcome::lost("the gateway closed the connection"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Outcome::lost(format!("the connection was lost: {error}"))),
            }
        }
    }

    async fn send(&mut self, packet: String) -> Result<(), Outcome> {
        let sent = timeout(self.idle_timeout, self.socket.send(Message::text(packet))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Outcome::lost(format!("the connection was lost: {error}"))),
            Err(_) => Err(Outcome::lost("the gateway has stopped reading")),
        }
    }
}

fn answered<W: Write>(
    rooms: &mut Rooms,
    request: usize,
    answer: &Value,
    printer: &Printer<W>,
) -> Result<(), Outcome> {
    let room = rooms.name(request);
    if answer.get("ok").and_then(Value::as_bool) == Some(true) {
        rooms.joined(request, answer);
        if answer.get("recovered").and_then(Value::as_bool) == Some(false) {
            printer
                .note(&format!("{room}: too many events were missed to send all; here is the current state"));
        }
        if answer.get("gone").and_then(Value::as_array).is_some_and(|gone| !gone.is_empty()) {
            return Err(Outcome::Refused(format!("{room} was deleted, or this user may no longer see it")));
        }
        return Ok(());
    }
    let error = answer.get("error").unwrap_or(answer);
    let text = |field: &str| error.get(field).and_then(Value::as_str).unwrap_or_default();
    match text("code") {
        "rate_limited" | "unavailable" => Err(Outcome::lost(format!("{room}: {}", shown(text("message"))))),
        "token_expired" => Err(Outcome::lost("the token has expired")),
        "not_found" => Err(Outcome::Refused(format!("{room} does not exist, or this user may not see it"))),
        code => Err(Outcome::Refused(format!("{room}: {}: {}", shown(code), shown(text("message"))))),
    }
}

/// Translates an error of the connection attempt. The client retries after temporary errors and ends with an error otherwise.
fn not_connected(gateway: &GatewayUrl, error: WsError) -> Outcome {
    match error {
        WsError::Http(response) => match response.status().as_u16() {
            408 | 425 | 429 | 500..=599 => {
                Outcome::lost(format!("{gateway} answers {} at the moment", response.status()))
            }
            _ => Outcome::Refused(format!(
                "{gateway} answers {}: check that this is the gateway's URL and that Socket.IO is switched on",
                response.status()
            )),
        },
        WsError::Url(error) => Outcome::Refused(format!("{gateway} can't be used: {error}")),
        error => Outcome::lost(format!("{gateway} can't be reached: {error}")),
    }
}
