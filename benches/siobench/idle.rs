//! The scenarios `idle`, `storms` and `dashboard`: clients connect, stay connected and disconnect.

use std::{error::Error, rc::Rc, time::Duration};

use serde_json::json;
use tokio::{task::spawn_local, time::sleep};

use crate::{
    client::{Client, World, open},
    joins::Joins,
    measure::{cpu, cpu_with_ended, histogram, now, quantiles, rounded, rss, tell},
    options::Options,
};

/// The number of memory measurements before the first storm, and after it.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const WARM_UP: usize = 100;

/// Measures the memory of each joined connection, for several numbers of connections.
pub async fn idle(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let world = World::new(&options);
    let empty = rss(&options.pids);
    let mut from = 0;
    for &to in &options.stages {
        world.handshakes.borrow_mut().reset();
        world.joins.borrow_mut().reset();
        let (before, was) = (cpu(&options.pids), world.ready.get());
        let mongod = cpu_with_ended(&options.mongod_pid);
        let (seconds, _) = open(&world, from..to).await;
        let (connected, came) = (cpu(&options.pids), world.ready.get() - was);
        let mongod = cpu_with_ended(&options.mongod_pid) - mongod;
        sleep(Duration::from_secs_f64(options.hold)).await;
        let (held, ready) = (rss(&options.pids), world.ready.get());
        let busy = (cpu(&options.pids) - connected) / options.hold * 100.0;
        let told = json!({
            "conns": to, "ready": ready, "failed": world.failed.get(), "closed": world.closed.get(), "rss_kib": held, "rss_empty_kib": empty,
            "kib_per_conn": rounded(held.saturating_sub(empty) as f64 / ready.max(1) as f64),
            "connects_per_s": (came as f64 / seconds).round(), "cpu_ms_per_connect": rounded((connected - before) * 1e3 / came.max(1) as f64),
            "mongod_ms_per_connect": rounded(mongod * 1e3 / came.max(1) as f64),
            "handshake_ms": quantiles(&world.handshakes.borrow()), "join_ms": quantiles(&world.joins.borrow()), "idle_cpu_percent": rounded(busy),
        });
        tell("idle", told);
        from = to;
    }
    Ok(())
}

/// Many clients connect and disconnect, several times. Measures how much memory stays in use.
pub async fn storms(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    // A small storm first loads code that has never run, because such code uses no memory before.
    storm(&options, WARM_UP).await;
    let before = settled(&options, LOOKS).await;
    let (mut most, mut first, mut failed) = (0, 0, 0);
    for round in 0..options.rounds {
        let (high, lost) = storm(&options, options.conns).await;
        most = most.max(high);
        failed += lost;
        if round == 0 {
            first = settled(&options, LOOKS).await;
        }
    }
    let after = settled(&options, options.settle as usize).await;
    let told = json!({
        "conns": options.conns, "rounds": options.rounds, "failed": failed, "before_kib": before, "most_kib": most, "first_kib": first, "after_kib": after,
        "after_to_before": rounded(after as f64 / before.max(1) as f64),
    });
    tell("storms", told);
    Ok(())
}

async fn storm(options: &Rc<Options>, conns: usize) -> (u64, usize) {
    let world = World::new(options);
    let (_, clients) = open(&world, 0..conns).await;
    let most = rss(&options.pids);
    for client in &clients {
        client.abort();
    }
    for client in clients {
        client.await.ok();
    }
    sleep(BETWEEN_LOOKS).await;
    (most, world.failed.get())
}

/// The smallest memory use within some seconds.
async fn settled(options: &Options, looks: usize) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..looks {
        sleep(BETWEEN_LOOKS).await;
        least = least.min(rss(&options.pids));
    }
    least
}

/// All clients connect first. Then all of them join the dashboard at once.
pub async fn dashboard(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let world = World::new(&options);
    let mut clients = Vec::with_capacity(options.conns);
    for n in 0..options.conns {
        let mut client = Client::new(n);
        let ws = client.connect(&world, &Joins::default()).await?;
        clients.push(ws);
    }
    let (begun, before) = (now(), cpu(&options.pids));
    let joining: Vec<_> = clients
        .into_iter()
        .map(|mut ws| {
            spawn_local(async move {
                let (mut bytes, mut refused) = (0, false);
                ws.send(r#"42["dashboard:join",{}]"#).await?;
                while bytes == 0 && !refused {
                    let open = ws
                        .read(&mut |packet| {
                            if packet.starts_with(b"42[\"dashboard:state\"") {
                                bytes = packet.len();
                            }
                            refused |= packet.starts_with(b"42[\"error\"");
                        })
                        .await?;
                    refused |= !open;
                }
                // The connection stays open, because closing is not part of the measurement.
                Ok::<_, std::io::Error>((now(), bytes, ws))
            })
        })
        .collect();
    let (mut times, mut bytes, mut whole, mut last, mut open) = (histogram(), 0, 0, begun, Vec::new());
    for one in joining {
        let Ok((at, len, ws)) = one.await? else { continue };
        if len > 0 {
            times.record((at - begun).max(1)).ok();
            (whole, bytes, last) = (whole + 1, bytes + len, last.max(at));
        }
        open.push(ws);
    }
    let used = cpu(&options.pids) - before;
    let told = json!({
        "conns": options.conns, "whole": whole, "seconds": rounded((last - begun) as f64 / 1e6), "state_ms": quantiles(&times),
        "bytes_per_state": bytes / whole.max(1), "cpu_s": rounded(used), "cpu_ms_per_join": rounded(used * 1e3 / options.conns as f64), "rss_kib": rss(&options.pids),
    });
    tell("dashboard", told);
    Ok(())
}
