//! The negative control of the burst scenario: a simple gateway that emits with a loop of `io.to(room).emit(..)` on
//! unmodified socketioxide. Clients join with `join`. A line `20000` on stdin makes the gateway emit 20000 events. The gateway
//! prints its port, and `done` after each burst.

use std::{convert::Infallible, error::Error};

use axum::Router;
use socketioxide::{
    SocketIo,
    extract::{AckSender, SocketRef},
    handler::ConnectHandler,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    net::TcpListener,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (layer, io) = SocketIo::new_layer();
    let register = async |socket: SocketRef| {
        socket.on("join", async |socket: SocketRef, ack: AckSender| {
            socket.join("room");
            ack.send(&true).ok();
        });
        socket.on("last", async |ack: AckSender| {
            ack.send(&true).ok();
        });
        Ok::<_, Infallible>(())
    };
    io.ns("/", (async || ()).with(register));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    tokio::spawn(async move { axum::serve(listener, Router::new().layer(layer)).await });

    let mut orders = BufReader::new(stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        for n in 0..order.parse::<u32>()? {
            // The error says that a client lost a packet, but not which client.
            io.to("room").emit("event", &n).await.ok();
        }
        println!("done");
    }
    Ok(())
}
