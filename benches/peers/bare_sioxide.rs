//! A minimal socketioxide server: it checks no tokens, lets every client into every room, and receives events by `POST /publish`. The
//! difference to taskcast is what taskcast's features cost. TCP_NODELAY is set; without it, each message would wait for the acknowledgement
//! of the one before.

use std::{convert::Infallible, env, error::Error};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
    serve::ListenerExt,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use socketioxide::{
    SocketIo,
    extract::{Data, SocketRef},
    handler::ConnectHandler,
};
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Publish {
    room: String,
    event: String,
    payload: Box<RawValue>,
}

async fn publish(State(io): State<SocketIo>, body: String) -> &'static str {
    for Publish { room, event, payload } in serde_json::from_str::<Vec<Publish>>(&body).unwrap_or_default() {
        if let Err(error) = io.to(room).emit(event, &payload).await {
            eprintln!("{error}");
        }
    }
    "ok"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (layer, io) = SocketIo::builder().max_buffer_size(4096).build_layer();
    // The handlers are registered in the middleware. The connect handler runs only after the client is informed, so the client's first
    // event may arrive before it.
    let register = async |socket: SocketRef| {
        socket.on("task:join", async |socket: SocketRef, Data::<Value>(request)| {
            let id = request["taskId"].as_str().unwrap_or_default().to_owned();
            socket.join(format!("task:{id}"));
            let state = json!({"taskId": id, "status": "received", "title": "A task", "events": []});
            socket.emit("task:state", &state).ok();
        });
        socket.on("dashboard:join", async |socket: SocketRef| {
            socket.join("dashboard");
            socket.emit("dashboard:state", &json!([])).ok();
        });
        Ok::<_, Infallible>(())
    };
    io.ns("/", (async || ()).with(register));
    let app = Router::new()
        .route("/publish", post(publish))
        .route("/api/health", get(async || r#"{"status":"ok"}"#))
        .layer(layer)
        .with_state(io);
    let port = env::var("PORT")?.parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), app).await?;
    Ok(())
}
