//! The scenarios `idle`, `storms` and `dashboard`: clients connect, stay connected and disconnect.

use std::{error::Error, rc::Rc, time::Duration};

use serde_json::json;
use tokio::{task::spawn_local, time::sleep};

use crate::{
    client::{Client, RunState, open},
    joins::Joins,
    measure::{cpu, cpu_with_ended, histogram, now, print_result, quantiles, rounded, rss},
    options::Options,
};

/// The number of memory measurements before the first storm, and after it.
const SAMPLES: usize = 10;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const WARM_UP: usize = 100;

/// Measures the memory of each joined connection, for several numbers of connections.
pub async fn idle(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let state = RunState::new(&options);
    let empty = rss(&options.pids);
    let mut from = 0;
    for &to in &options.stages {
        state.handshakes.borrow_mut().reset();
        state.joins.borrow_mut().reset();
        let (before, ready_before) = (cpu(&options.pids), state.ready.get());
        let mongod = cpu_with_ended(&options.mongod_pid);
        let (seconds, _) = open(&state, from..to).await;
        let (connected, new_clients) = (cpu(&options.pids), state.ready.get() - ready_before);
        let mongod = cpu_with_ended(&options.mongod_pid) - mongod;
        sleep(Duration::from_secs_f64(options.hold)).await;
        let (held, ready) = (rss(&options.pids), state.ready.get());
        let busy = (cpu(&options.pids) - connected) / options.hold * 100.0;
        let result = json!({
            "conns": to, "ready": ready, "failed": state.failed.get(), "closed": state.closed.get(), "rss_kib": held, "rss_empty_kib": empty,
            "kib_per_conn": rounded(held.saturating_sub(empty) as f64 / ready.max(1) as f64),
            "connects_per_s": (new_clients as f64 / seconds).round(), "cpu_ms_per_connect": rounded((connected - before) * 1e3 / new_clients.max(1) as f64),
            "mongod_ms_per_connect": rounded(mongod * 1e3 / new_clients.max(1) as f64),
            "handshake_ms": quantiles(&state.handshakes.borrow()), "join_ms": quantiles(&state.joins.borrow()), "idle_cpu_percent": rounded(busy),
        });
        print_result("idle", result);
        from = to;
    }
    Ok(())
}

/// Many clients connect and disconnect, several times. Measures how much memory stays in use.
pub async fn storms(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    // A small storm first loads code that has never run, because such code uses no memory before.
    storm(&options, WARM_UP).await;
    let before = settled(&options, SAMPLES).await;
    let (mut max_rss, mut first, mut failed) = (0, 0, 0);
    for round in 0..options.rounds {
        let (high, lost) = storm(&options, options.conns).await;
        max_rss = max_rss.max(high);
        failed += lost;
        if round == 0 {
            first = settled(&options, SAMPLES).await;
        }
    }
    let after = settled(&options, options.settle as usize).await;
    let result = json!({
        "conns": options.conns, "rounds": options.rounds, "failed": failed, "before_kib": before, "most_kib": max_rss, "first_kib": first, "after_kib": after,
        "after_to_before": rounded(after as f64 / before.max(1) as f64),
    });
    print_result("storms", result);
    Ok(())
}

async fn storm(options: &Rc<Options>, conns: usize) -> (u64, usize) {
    let state = RunState::new(options);
    let (_, clients) = open(&state, 0..conns).await;
    let max_rss = rss(&options.pids);
    for client in &clients {
        client.abort();
    }
    for client in clients {
        client.await.ok();
    }
    sleep(SAMPLE_INTERVAL).await;
    (max_rss, state.failed.get())
}

/// The smallest memory use within some seconds.
async fn settled(options: &Options, samples: usize) -> u64 {
    let mut min_rss = u64::MAX;
    for _ in 0..samples {
        sleep(SAMPLE_INTERVAL).await;
        min_rss = min_rss.min(rss(&options.pids));
    }
    min_rss
}

/// All clients connect first. Then all of them join the dashboard at once.
pub async fn dashboard(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let state = RunState::new(&options);
    let mut clients = Vec::with_capacity(options.conns);
    for n in 0..options.conns {
        let mut client = Client::new(n);
        let ws = client.connect(&state, &Joins::default()).await?;
        clients.push(ws);
    }
    let (started, before) = (now(), cpu(&options.pids));
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
    let (mut times, mut bytes, mut joined, mut last, mut open) = (histogram(), 0, 0, started, Vec::new());
    for task in joining {
        let Ok((at, len, ws)) = task.await? else { continue };
        if len > 0 {
            times.record((at - started).max(1)).ok();
            (joined, bytes, last) = (joined + 1, bytes + len, last.max(at));
        }
        open.push(ws);
    }
    let used = cpu(&options.pids) - before;
    let result = json!({
        "conns": options.conns, "whole": joined, "seconds": rounded((last - started) as f64 / 1e6), "state_ms": quantiles(&times),
        "bytes_per_state": bytes / joined.max(1), "cpu_s": rounded(used), "cpu_ms_per_join": rounded(used * 1e3 / options.conns as f64), "rss_kib": rss(&options.pids),
    });
    print_result("dashboard", result);
    Ok(())
}
