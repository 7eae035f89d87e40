//! The negative control of the burst scenario: a gateway as one would write it, a loop of `io.to(room).emit(..)` on
//! socketioxide as it comes. Clients join with `join`; a line `20000` on stdin emits so many events. It prints its
//! port, and `done` after each burst.

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
            // Its error says that somebody lost something, not who.
            io.to("room").emit("event", &n).await.ok();
        }
        println!("done");
    }
    Ok(())
}
