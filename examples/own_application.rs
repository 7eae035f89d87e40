//! An application with its own axum routes and its own socketioxide namespace, to which taskcast adds the task rooms.
//!
//! ```sh
//! JWT_SECRET=… PORT=3000 cargo run --example own_application
//! ```
//!
//! Clients join tasks in the namespace `/` and chat in the namespace `/chat`. The settings are those of the gateway.

use std::{error::Error, path::Path};

use axum::{Router, routing::get};
use serde_json::Value;
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};
use taskcast::{
    app::Relay,
    config::{Config, Sources},
    socketioxide::attach,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sources = Sources::new([]).with_env(std::env::vars_os()).with_dotenv(Path::new(".env"))?;
    let config = Config::read(&sources)?;
    let tokens = config.tokens()?;
    let built = Relay::build(&config, &tokens)?;

    // An answer to a polling client must not end at a limit: see docs/transports.md.
    let (layer, io) = SocketIo::builder().max_payload(u32::MAX.into()).build_layer();
    // The task rooms are in `/`, beside an event of the application.
    attach(&io, "/", built.relay.sessions.clone(), |socket: SocketRef| {
        socket.on("whoami", async |socket: SocketRef, ack: AckSender| {
            let _ = ack.send(&socket.id.to_string());
        });
    });
    io.ns("/chat", async |socket: SocketRef| {
        socket.on("say", async |socket: SocketRef, Data::<Value>(text)| {
            // A client that reads too slowly misses a message of the chat, but never an event of a task.
            let _ = socket.broadcast().emit("said", &text).await;
        });
    });

    let router = Router::new().route("/", get(async || "an application with task rooms\n")).layer(layer);
    let listener = TcpListener::bind((config.server.host, config.server.port)).await?;
    println!("listening on {}", listener.local_addr()?);
    tokio::select! {
        served = async { axum::serve(listener, router).await } => Ok(served?),
        // The relay runs until a part fails, for example because the store's settings are wrong.
        error = built.run() => Err(error.into()),
    }
}
